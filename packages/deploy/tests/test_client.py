import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from marline.core import ServerError
from marline.deploy import Client, Reply, Status, Tokens, content_type_of
from marline.deploy._tokens import read_tokens

Answer = Callable[[httpx2.Request], httpx2.Response]

DESCRIBED: list[dict[str, Any]] = [
    {
        "modelName": "digits_cnn",
        "batchSize": 8,
        "maxBatchDelay": 5,
        "modelVersion": "1.0",
        "modelUrl": "a.mar",
        "responseTimeout": 60,
        "workers": [{"id": "9000", "pid": 11, "status": "READY"}, {"id": "9001", "pid": -1, "status": "UNLOADING"}],
        "jobQueueStatus": {"remainingCapacity": 997, "pendingRequests": 3},
    }
]


def client_of(answer: Answer) -> Client:
    return Client("http://127.0.0.1:1", "http://127.0.0.1:2", Tokens("manage", "infer"), httpx2.MockTransport(answer))


def test_every_value_of_a_registration_is_in_the_query_and_none_in_a_body() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(202, json={"status": "accepted"})

    client_of(answer).register("a.mar", "digits_cnn", batch_size=8, max_batch_delay_ms=5, workers=2)

    (request,) = seen
    assert ("POST", "/models", b"") == (request.method, request.url.path, request.read())
    assert {
        "url": "a.mar",
        "model_name": "digits_cnn",
        "batch_size": "8",
        "max_batch_delay": "5",
        "initial_workers": "2",
        "synchronous": "false",
    } == dict(request.url.params)
    assert "Bearer manage" == request.headers["Authorization"]


def test_a_description_is_read() -> None:
    status = client_of(lambda _: httpx2.Response(200, json=DESCRIBED)).describe("digits_cnn")

    told: dict[str, Any] = {"version": "1.0", "archive": "a.mar", "worker_ids": ("9000", "9001"), "response_timeout_s": 60}
    assert Status(8, 5, ((11, "READY"), (-1, "UNLOADING")), pending=3, **told) == status
    assert status is not None
    assert 1 == status.ready


def test_an_unknown_model_is_none_and_its_removal_is_quiet() -> None:
    client = client_of(lambda _: httpx2.Response(404, json={"code": 404, "type": "ModelNotFoundException"}))

    client.unregister("nope")

    assert client.describe("nope") is None


def test_a_refusal_carries_the_status_and_what_torchserve_said() -> None:
    client = client_of(lambda _: httpx2.Response(409, text="Model version 1.0 is already registered"))

    with pytest.raises(ServerError, match=r"answers 409 to POST /models: Model version 1.0 is already registered"):
        client.register("a.mar", "digits_cnn", batch_size=1, max_batch_delay_ms=100, workers=1)


def test_silence_is_a_server_error_with_the_address_and_the_deadline() -> None:
    def silent(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("silence", request=request)

    client = client_of(silent)

    with pytest.raises(ServerError, match=r"http://127.0.0.1:2/predictions/digits_cnn gave no answer within 3 s: ReadTimeout"):
        client.predict("digits_cnn", b"", "image/png", deadline_s=3)
    with pytest.raises(ServerError, match=r"no answer to GET /models/digits_cnn within 30 s"):
        client.describe("digits_cnn")
    assert not client.alive()


def test_whatever_comes_back_from_a_prediction_is_returned() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(503, content=b"busy")

    reply = client_of(answer).predict("digits_cnn", b"\x89PNG", "image/png")

    assert Reply(503, b"busy") == reply
    assert ("Bearer infer", "image/png") == (seen[0].headers["Authorization"], seen[0].headers["Content-Type"])
    assert b"\x89PNG" == seen[0].read()


def test_a_version_is_addressed_by_its_name() -> None:
    seen: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(f"{request.method} {request.url.path}")
        return httpx2.Response(200, json=DESCRIBED)

    client = client_of(answer)
    client.predict("m", b"", "image/png", version="2.0")
    client.describe("m", "2.0")
    client.unregister("m", "2.0")
    client.make_default("m", "2.0")
    client.scale("m", 3, "2.0")
    assert ("1.0",) == tuple(one.version for one in client.versions("m"))

    path = "/models/m/2.0"
    assert ["POST /predictions/m/2.0", f"GET {path}", f"DELETE {path}", f"PUT {path}/set-default", f"PUT {path}"] == seen[:-1]
    assert "GET /models/m/all" == seen[-1]


@pytest.mark.parametrize(("status", "alive"), [(200, True), (401, False)])
def test_a_server_is_alive_when_it_takes_our_token(status: int, *, alive: bool) -> None:
    assert alive == client_of(lambda _: httpx2.Response(status, json={})).alive()


@pytest.mark.parametrize(("status", "gave_up"), [(200, False), (500, True), (400, False)])
def test_torchserve_has_given_up_when_it_says_so(status: int, *, gave_up: bool) -> None:
    assert gave_up == client_of(lambda request: httpx2.Response(status if request.url.path == "/ping" else 404)).gave_up()


def test_tokens_are_read_from_the_file_torchserve_writes(tmp_path: Path) -> None:
    file = tmp_path / "key_file.json"
    key = {"expiration time": "2026-01-01T00:00:00Z"}
    file.write_text(json.dumps({name: {"key": name[0], **key} for name in ("management", "inference", "API")}))

    expiry = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert Tokens(management="m", inference="i", api="A", expires_s=expiry, file=file) == read_tokens(file)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.png", "image/png"), ("a.jpg", "image/jpeg"), ("a.json", "application/json"), ("a", "application/octet-stream")],
)
def test_a_content_type_comes_from_the_name(name: str, expected: str) -> None:
    assert expected == content_type_of(name)


METRICS = """# TYPE PredictionTime gauge
PredictionTime{ModelName="digits_cnn_2",Level="Model",Hostname="vm",} 8.5
PredictionTime{ModelName="digits_cnn",Level="Model",Hostname="vm",} 5.47
"""


def test_the_time_of_a_batch_is_the_one_that_torchserve_tells_of_this_model() -> None:
    client = replace(client_of(lambda _: httpx2.Response(200, text=METRICS)), metrics_url="http://127.0.0.1:3")

    assert (5.47, 8.5) == (client.batch_ms("digits_cnn"), client.batch_ms("digits_cnn_2"))
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:3/metrics does not say how long batches of other took"):
        client.batch_ms("other")


COUNTED = """# TYPE ts_inference_requests_total counter
ts_inference_requests_total{model_name="m",model_version="default",hostname="vm",} 7.0
ts_inference_requests_total{model_name="m",model_version="1.0-0123abcd",hostname="vm",} 2.0
"""


def test_requests_that_name_a_version_are_counted_by_torchserve() -> None:
    client = replace(client_of(lambda _: httpx2.Response(200, text=COUNTED)), metrics_url="http://127.0.0.1:3")

    assert (2, 0) == (client.named("m", "1.0-0123abcd"), client.named("m", "1.0"))
