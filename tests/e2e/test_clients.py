"""What clients meet on the real TorchServe, over REST, gRPC and the Open Inference Protocol: one server, told of two GPUs."""

import base64
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
import yaml

from marline.archive import build
from marline.core import FakeGpus, Gpu, ServerError, read_config
from marline.deploy import (
    Answer,
    Client,
    GrpcClient,
    Kind,
    Server,
    Tensor,
    Tokens,
    ask,
    assigned,
    classify,
    infer,
    model_ready,
    serving,
)
from marline.deploy._protocol import call, message

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent / "handlers"
DIGITS = HERE.parents[2] / "models" / "digits_cnn"
SIX = (DIGITS / "samples" / "0_is_6.png").read_bytes()
IMAGE = Tensor("image", (1,), "BYTES", (SIX,))
TEXT = "text/plain"
TWO = FakeGpus((Gpu(0, "GPU-aa", "NVIDIA T4", 15_360, 0), Gpu(1, "GPU-bb", "NVIDIA T4", 15_360, 0)))
CONFIGS: dict[str, dict[str, Any]] = {
    "faulty": {"deviceType": "cpu", "jobQueueSize": 2, "responseTimeout": 2},
    "spread": {"minWorkers": 2, "maxWorkers": 2},
    "chosen": {"deviceIds": [0]},
    "bare": {"deviceType": "cpu", "minWorkers": 0, "maxWorkers": 0},
    "digits": {"deviceType": "cpu"},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with all archives; `bare` has no workers."""
    folder = tmp_path_factory.mktemp("archives")
    found = {}
    for name, values in CONFIGS.items():
        config = folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(values))
        weights = {"checkpoint_file": DIGITS / "model.safetensors", "extra_files": [DIGITS / "model.py"]}
        told = {"handler": HERE / "shared_image.py", **weights} if name == "digits" else {"handler": HERE / "faulty.py"}
        found[name] = build(name, config_file=config, export_path=folder / "store", **told).file
    config_told = read_config(["model=digits_cnn", "deploy.open_inference=true", "deploy.max_request_mb=1"]).config.deploy
    with serving(config_told, tmp_path_factory.mktemp("logs"), gpus=TWO) as running:

        def load(name: str) -> None:
            running.load(found[name], name, batch_size=1, max_batch_delay_ms=1, workers=CONFIGS[name].get("minWorkers", 1))

        load("spread")  # alone and first: the two GPUs are handed out in turn
        with ThreadPoolExecutor(2) as loaders:
            list(loaders.map(load, [name for name in found if name != "spread"]))
        yield running


@pytest.fixture(scope="module")
def over_grpc(server: Server) -> Iterator[GrpcClient]:
    with GrpcClient(server.client) as client:
        yield client


@pytest.fixture(params=["REST", "gRPC"])
def client(request: pytest.FixtureRequest, server: Server, over_grpc: GrpcClient) -> Any:
    """The same server over each protocol."""
    return server.client if request.param == "REST" else over_grpc


@pytest.fixture
def ready(server: Server, until: Any) -> Iterator[None]:
    """Leave the worker READY for the next test, whatever this one did to it."""
    yield
    until(lambda: (status := server.client.describe("faulty")) is not None and status.ready, 30, "faulty has a worker again")


def asked(client: Any, text: str, **how: Any) -> Answer:
    return ask(client, "faulty", text.encode(), TEXT, **{"tries": 1, "deadline_s": 20, **how})


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("hello", Kind.OK, ""),
        ("raise it", Kind.HANDLER_RAISED, "Prediction failed"),
        ("text", Kind.HANDLER_NONSENSE, "Invalid model predict output"),
        ("few", Kind.HANDLER_NONSENSE, "number of batch response mismatched"),
        ("objects", Kind.HANDLER_NONSENSE, "Unsupported model output data type."),
        ("memory", Kind.OUT_OF_RESOURCES, "Out of resources"),
        ("die SIGTERM", Kind.WORKER_DIED, "Worker died."),
    ],
)
def test_each_way_to_fail_is_told_apart(client: Any, ready: None, text: str, kind: Kind, said: str) -> None:
    answer = asked(client, text)

    assert (kind, said) == (answer.kind, answer.said)


def test_a_killed_worker_is_out_of_resources_or_dead(client: Any, ready: None) -> None:
    answer = asked(client, "die SIGKILL")

    assert answer.kind in {Kind.OUT_OF_RESOURCES, Kind.WORKER_DIED}, answer.words  # by whether its exit was seen in time
    assert "Worker died." == answer.said


def test_a_silent_worker_is_ended_by_torchserve(server: Server, ready: None) -> None:
    assert Kind.WORKER_DIED is asked(server.client, "sleep 4").kind  # responseTimeout is 2 s


def test_what_died_on_the_way_is_asked_again_where_that_does_no_harm(server: Server, ready: None, tmp_path: Path) -> None:
    answer = asked(server.client, f"once {tmp_path}/died", idempotent=True, tries=10)

    assert (Kind.OK, True) == (answer.kind, answer.tries > 1)


def test_a_status_of_the_handler_s_own_is_kept_by_rest_and_lost_by_grpc(server: Server, over_grpc: GrpcClient) -> None:
    answers = [asked(client, "refuse 422") for client in (server.client, over_grpc)]

    assert [(422, Kind.BAD_REQUEST, "mine"), (500, Kind.OTHER, "mine")] == [(one.status, one.kind, one.said) for one in answers]


def test_no_worker_and_no_model_and_a_wrong_token_and_too_much_are_told_apart(server: Server, client: Any) -> None:
    wrong = Client(
        server.client.management_url,
        server.client.inference_url,
        Tokens("wrong", "wrong"),
        grpc_inference=server.client.grpc_inference,
        grpc_management=server.client.grpc_management,
    )
    stranger = GrpcClient(wrong) if isinstance(client, GrpcClient) else wrong

    kinds = [
        ask(client, "bare", b"", TEXT, tries=1).kind,
        ask(client, "nobody", b"", TEXT, tries=1).kind,
        ask(stranger, "faulty", b"", TEXT, tries=1).kind,
        ask(stranger, "bare", b"", TEXT, tries=1).kind,
        asked(client, "x" * (2 << 20)).kind,
    ]

    assert [Kind.NO_WORKER, Kind.NOT_FOUND, Kind.UNAUTHORISED, Kind.UNAUTHORISED, Kind.TOO_LARGE] == kinds
    with pytest.raises(ServerError, match=r"InvalidKeyException|PERMISSION_DENIED"):
        stranger.describe("faulty")


def test_what_does_not_fit_the_queue_is_refused_at_once_and_answered_after_a_pause(
    client: Any, until: Any, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(8) as askers:
        first = askers.submit(asked, client, f"begin {tmp_path}/begun")
        until((tmp_path / "begun").exists, 10, "one is in work")
        answers = [*askers.map(lambda _: asked(client, "sleep 0.5"), range(7)), first.result()]

    kinds = [answer.kind for answer in answers]
    assert {Kind.OK, Kind.QUEUE_FULL} == set(kinds)
    assert kinds.count(Kind.OK) >= 3  # one in work, two waiting
    with ThreadPoolExecutor(6) as askers:
        answers = list(askers.map(lambda _: asked(client, "sleep 0.5", tries=30), range(6)))
    assert [Kind.OK] * 6 == [answer.kind for answer in answers]
    assert max(answer.tries for answer in answers) > 1


def test_a_client_gives_up_at_its_own_deadline_and_the_server_goes_on(client: Any) -> None:
    began = time.monotonic()
    answer = asked(client, "sleep 1.5", deadline_s=0.3)
    took_s = time.monotonic() - began
    with ThreadPoolExecutor(8) as askers:
        list(askers.map(lambda _: asked(client, "sleep 0.2", deadline_s=0.1), range(24)))

    after = asked(client, "after", tries=60, deadline_s=10)

    assert (Kind.SILENCE, Kind.OK) == (answer.kind, after.kind)
    assert took_s < 1.2


def test_management_s_refusals_are_told_apart(server: Server) -> None:
    management, token = server.client.management_url, server.client.tokens.management
    status = server.client.describe("faulty")
    assert status is not None
    expected = {
        ("POST", f"/models?url={status.archive}&model_name=faulty"): Kind.CONFLICT,
        ("PATCH", "/models/faulty"): Kind.NOT_ALLOWED,
        ("DELETE", "/models/faulty/9.9"): Kind.NOT_FOUND,
        ("GET", "/nowhere"): Kind.NOT_FOUND,
        ("POST", "/models"): Kind.BAD_REQUEST,
        ("PUT", "/models/faulty?min_worker=1&max_worker=1"): Kind.ACCEPTED,
        ("GET", "/models/faulty"): Kind.OK,
    }

    def kind(verb: str, path: str) -> Kind:
        with httpx2.Client(timeout=10, verify=False) as http:
            reply = http.request(verb, management + path, headers={"Authorization": f"Bearer {token}"})
        return classify(reply.status_code, reply.content).kind

    assert expected == {told: kind(*told) for told in expected}


def test_grpc_describes_as_rest_does_and_pings(server: Server, over_grpc: GrpcClient) -> None:
    assert server.client.describe("digits") == over_grpc.describe("digits")
    assert over_grpc.describe("nobody") is None
    assert over_grpc.ping()


@pytest.mark.parametrize(
    ("body", "kind"),
    [(SIX, "image/png"), (b'{"b64": "%s"}' % base64.b64encode(SIX), "application/json"), (b"a cat", TEXT)],
)
def test_grpc_answers_as_rest_does_one_request_s_refusal_included(
    server: Server, over_grpc: GrpcClient, body: bytes, kind: str
) -> None:
    assert server.client.predict("digits", body, kind) == over_grpc.predict("digits", body, kind)


def test_the_open_protocol_answers_alike_over_both(server: Server, client: Any) -> None:
    found = infer(client, "digits", [IMAGE], request_id="7")

    outputs = {one.name: one for one in found.outputs}
    assert ("7", "1.0", ["digit", "ink", "logits"]) == (found.request_id, found.model_version, sorted(outputs))
    assert Tensor("digit", (1,), "INT64", (6,)) == outputs["digit"]
    assert ((10,), "FP64") == (outputs["logits"].shape, outputs["logits"].datatype)


@pytest.mark.parametrize("inputs", [[Tensor("x", (3,), "FP32", (1.0,))], [Tensor("x", (1,), "BYTES", (b"\xff\xd8\xffno",))]])
def test_what_the_open_protocol_refuses_leaves_the_worker_alone(server: Server, client: Any, inputs: list[Tensor]) -> None:
    before = server.client.describe("digits")

    found = infer(client, "digits", inputs)

    assert (400, ()) == (found.reply.status, found.outputs)
    assert before == server.client.describe("digits")


def test_no_inputs_over_grpc_leave_the_worker_alone_too(over_grpc: GrpcClient) -> None:
    assert (400, True) == (infer(over_grpc, "digits", []).reply.status, model_ready(over_grpc, "digits"))


def test_a_handler_that_does_not_know_the_open_protocol_loses_its_worker_to_grpc_alone(
    server: Server, over_grpc: GrpcClient, ready: None
) -> None:
    hello = [Tensor("x", (1,), "BYTES", ("hello",))]

    with pytest.raises(ServerError, match="faulty does not answer in the Open Inference Protocol"):
        infer(server.client, "faulty", hello)
    lost = infer(over_grpc, "faulty", hello).reply

    assert Kind.WORKER_DIED is classify(lost.status, lost.body).kind


def test_the_open_protocol_calls_a_model_without_workers_ready(over_grpc: GrpcClient) -> None:
    assert [True, True, False] == [model_ready(over_grpc, name) for name in ("digits", "bare", "nobody")]


def test_the_open_protocol_s_service_has_a_name_of_torchserve_s_own(server: Server, over_grpc: GrpcClient) -> None:
    token = (("authorization", f"Bearer {server.client.tokens.inference}"),)
    with grpc.insecure_channel(server.client.grpc_inference) as channel:
        standard = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        with pytest.raises(grpc.RpcError, match="Method not found"):
            standard(b"", timeout=5, metadata=token)
        own = call(channel, "openinference.GRPCInferenceService", "ServerLive")
        assert own(message("openinference.ServerLiveRequest")(), timeout=5, metadata=token).live


def test_workers_are_spread_over_the_gpus_as_predicted(server: Server) -> None:
    answers = [json.loads(ask(server.client, "spread", b"", TEXT).body) for _ in range(8)]

    gpus = {answer["pid"]: answer["gpu"] for answer in answers}
    status = server.client.describe("spread")
    assert status is not None
    assert assigned(2, 2) == [gpus[pid] for pid, _ in status.workers]


def test_a_model_s_device_ids_choose_its_gpu_and_the_cpu_has_none(server: Server) -> None:
    chosen, none = (json.loads(ask(server.client, name, b"", TEXT).body)["gpu"] for name in ("chosen", "faulty"))

    assert (assigned(1, 2, [0])[0], None) == (chosen, none)
