"""A real gRPC server in this process, with TorchServe's own messages and its ways of failing (tests/e2e has TorchServe's)."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from marline.core import ServerError
from marline.deploy import Client, GrpcClient, Kind, Reply, Tensor, Tokens, ask, classify, infer, model_ready
from marline.deploy._protocol import call, message

PACKAGE = "org.pytorch.serve.grpc"
METHODS = {
    "inference.InferenceAPIsService": ("inference.PredictionsRequest", "Predictions"),
    "management.ManagementAPIsService": ("management.DescribeModelRequest", "DescribeModel"),
    "openinference.GRPCInferenceService": ("openinference.ModelInferRequest", "ModelInfer"),
}
X = Tensor("x", (2,), "FP32", (1.0, 2.5))
DESCRIBED = '[{"batchSize": 8, "maxBatchDelay": 5, "workers": [{"pid": 11, "status": "READY"}]}]'
Start = Callable[..., GrpcClient]


@pytest.fixture
def start() -> Iterator[Start]:
    """Serve this function of (request, context), for every method; returns a client."""
    pool = ThreadPoolExecutor(4)
    server = grpc.server(pool)
    clients: list[GrpcClient] = []

    def begin(answer: Callable[[Any, Any], Any]) -> GrpcClient:
        for service, (asked, name) in METHODS.items():
            handler = grpc.unary_unary_rpc_method_handler(
                answer, message(asked).FromString, lambda one: one.SerializeToString()
            )
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"{PACKAGE}.{service}", {name: handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        address = f"127.0.0.1:{port}"
        clients.append(GrpcClient(Client("", "http://here", Tokens("manage", "infer"), None, "", address, address)))
        return clients[0]

    yield begin
    for client in clients:
        client.close()
    server.stop(0).wait()
    pool.shutdown()


def fails(code: grpc.StatusCode, details: str) -> Callable[[Any, Any], Any]:
    return lambda _, context: context.abort(code, details)


def test_the_body_the_token_and_json_s_content_type_arrive(start: Start) -> None:
    seen: list[tuple[Any, dict[str, str]]] = []

    def answer(asked: Any, context: Any) -> Any:
        seen.append((asked, dict(context.invocation_metadata())))
        return message("inference.PredictionResponse")(prediction=b"yes")

    client = start(answer)

    replies = [client.predict("m", b"[1]", kind) for kind in ("application/json", "image/png")]

    assert [Reply(200, b"yes")] * 2 == replies
    assert [{"data": b"[1]", "content-type": b"application/json"}, {"data": b"[1]"}] == [dict(one.input) for one, _ in seen]
    assert ("m", "Bearer infer", "gRPC") == (seen[0][0].model_name, seen[0][1]["authorization"], seen[0][1]["protocol"])


def test_a_token_that_was_renewed_meanwhile_is_used(start: Start, tmp_path: Path) -> None:
    seen: list[str] = []

    def answer(_: Any, context: Any) -> Any:
        seen.append(dict(context.invocation_metadata())["authorization"])
        if seen[-1] != "Bearer newer":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "Token Authorization failed. Token either incorrect, expired, ...")
        return message("inference.PredictionResponse")(prediction=b"yes")

    client = start(answer)
    refused = client.predict("m", b"", "image/png", version="2.0")
    client.tokens.file = tmp_path / "key_file.json"
    client.tokens.file.write_text(json.dumps({kind: {"key": "newer"} for kind in ("management", "inference")}))

    assert (400, 200) == (refused.status, client.predict("m", b"", "image/png").status)
    assert ["Bearer infer", "Bearer infer", "Bearer newer"] == seen


def test_a_model_is_described_as_over_rest(start: Start) -> None:
    client = start(lambda *_: message("management.ManagementResponse")(msg=DESCRIBED))

    status = client.describe("m")

    assert status is not None
    assert (8, 5, 1) == (status.batch_size, status.max_batch_delay_ms, status.ready)


INTERNAL, UNAVAILABLE, CANCELLED = grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED
CLASS = "\norg.pytorch.serve.http.InternalServerException"


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (INTERNAL, "Model m has no worker to serve inference request.\nInternalServerException.()", Kind.QUEUE_FULL),
        (UNAVAILABLE, "Prediction failed" + CLASS, Kind.HANDLER_RAISED),
        (UNAVAILABLE, "Invalid model predict output" + CLASS, Kind.HANDLER_NONSENSE),
        (INTERNAL, "Worker died." + CLASS, Kind.WORKER_DIED),
        (INTERNAL, "Out of resources" + CLASS, Kind.OUT_OF_RESOURCES),
        (INTERNAL, "Model not found: m\norg.pytorch.serve.archive.model.ModelNotFoundException", Kind.NOT_FOUND),
        (INTERNAL, "Parameter model_name is required.\nBadRequestException.()", Kind.BAD_REQUEST),
        (
            CANCELLED,
            "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
            Kind.UNAUTHORISED,
        ),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Worker died." + CLASS, Kind.OUT_OF_RESOURCES),
        (CANCELLED, "Stream removed (RST_STREAM (Received RST_STREAM with error code 8))", Kind.TOO_LARGE),
        (grpc.StatusCode.UNKNOWN, "", Kind.OTHER),
    ],
)
def test_grpc_s_failures_are_the_kinds_of_rest(start: Start, code: Any, details: str, kind: Kind) -> None:
    client = start(fails(code, details))

    reply = client.predict("m", b"", "image/png")

    assert kind is classify(reply.status, reply.body, lambda: 1).kind


def test_a_refusal_of_our_handler_that_arrives_as_ok_is_a_refusal(start: Start) -> None:
    told = json.dumps({"code": 400, "type": "BadRequest", "message": "no image"}).encode()
    own = json.dumps({"code": "x", "type": "y", "message": "z"}).encode()
    client = start(lambda asked, _: message("inference.PredictionResponse")(prediction=asked.input["data"]))

    assert [400, 200, 200] == [client.predict("m", body, "image/png").status for body in (told, own, b'{"code": 400}')]


def test_a_deadline_is_hard_and_its_silence_is_told(start: Start) -> None:
    def sleeps(asked: Any, context: Any) -> Any:
        time.sleep(2)

    client = start(sleeps)
    began = time.monotonic()

    answer = ask(client, "m", b"", "image/png", deadline_s=0.3)

    assert time.monotonic() - began < 1
    assert Kind.SILENCE is answer.kind
    with pytest.raises(ServerError, match="ModelInfer of m gave no answer within 0 s"):
        infer(client, "m", [X], deadline_s=0.2)


def test_where_nobody_listens_it_says_so() -> None:
    nobody = "127.0.0.1:1"
    with GrpcClient(Client("", "", Tokens("m", "i"), None, "", nobody, nobody)) as client:
        answer = ask(client, "m", b"", "image/png", tries=1)

        assert Kind.UNREACHABLE is answer.kind
        with pytest.raises(ServerError, match="reached nobody"):
            client.ping()
        with pytest.raises(ServerError, match="reached nobody"):
            model_ready(client, "m")


def test_a_server_whose_grpc_addresses_are_not_known_is_refused() -> None:
    with pytest.raises(ServerError, match="gRPC addresses of the server at http://here are not known"):
        GrpcClient(Client("", "http://here", Tokens("m", "i")))


def test_an_inference_goes_and_comes_as_tensors_with_texts_as_torchserve_quotes_them(start: Start) -> None:
    seen: list[Any] = []

    def answer(asked: Any, context: Any) -> Any:
        seen.append(asked)
        found = message("openinference.ModelInferResponse")(id=asked.id, model_name="m", model_version="1.0")
        found.outputs.add(name="score", datatype="FP64", shape=[1]).contents.fp64_contents.append(0.5)
        found.outputs.add(name="label", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b'"a \\"cat\\""')
        return found

    found = infer(start(answer), "m", [X, Tensor("t", (1,), "BYTES", ("text",))], request_id="7")

    assert (Tensor("score", (1,), "FP64", (0.5,)), Tensor("label", (1,), "BYTES", ('a "cat"',))) == found.outputs
    assert ("7", "1.0", 200) == (found.request_id, found.model_version, found.reply.status)
    numbers, text = seen[0].inputs
    assert ([1.0, 2.5], [b"text"]) == (list(numbers.contents.fp32_contents), list(text.contents.bytes_contents))


def test_a_refusal_inside_an_inference_is_a_refusal(start: Start) -> None:
    told = json.dumps({"code": 400, "type": "BadRequest", "message": "no image"})

    def answer(asked: Any, context: Any) -> Any:
        found = message("openinference.ModelInferResponse")(id="", model_name="m", model_version="1.0")
        found.outputs.add(name="error", datatype="BYTES", shape=[1]).contents.bytes_contents.append(json.dumps(told).encode())
        return found

    found = infer(start(answer), "m", [X])

    assert (400, (), "no image") == (found.reply.status, found.outputs, json.loads(found.reply.body)["message"])


def test_a_datatype_that_torchserve_drops_over_grpc_is_refused_before(start: Start) -> None:
    client = start(fails(INTERNAL, "never asked"))

    with pytest.raises(ServerError, match=r"x: TorchServe 0\.12 takes no FP16 over gRPC; known are BOOL"):
        infer(client, "m", [Tensor("x", (1,), "FP16", (1.0,))])


def test_a_method_that_torchserve_has_not_is_refused_by_its_own_protos() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel, pytest.raises(KeyError):
        call(channel, "inference.InferenceAPIsService", "Explanations")
