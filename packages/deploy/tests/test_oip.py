import base64
import json
from collections.abc import Callable

import httpx2
import pytest

from marline.core import ServerError
from marline.deploy import Client, Tensor, Tokens, infer

X = Tensor("x", (2,), "FP32", (1.0, 2.5))
ANSWER = {
    "id": "7",
    "model_name": "m",
    "model_version": "1.0",
    "outputs": [{"name": "output", "shape": [2], "datatype": "INT64", "data": [3, 4]}],
}


def client_of(answer: Callable[[httpx2.Request], httpx2.Response]) -> Client:
    return Client("http://127.0.0.1:1", "http://127.0.0.1:2", Tokens("manage", "infer"), httpx2.MockTransport(answer))


def test_an_inference_over_rest_goes_and_comes_as_tensors() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json=ANSWER)

    found = infer(client_of(answer), "m", [X, Tensor("image", (1,), "BYTES", (b"\x89PNG",))], request_id="7")

    assert ((Tensor("output", (2,), "INT64", (3, 4)),), "7", "1.0") == (found.outputs, found.request_id, found.model_version)
    assert ("/v2/models/m/infer", "Bearer infer") == (seen[0].url.path, seen[0].headers["Authorization"])
    numbers, image = json.loads(seen[0].read())["inputs"]
    assert {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.5]} == numbers
    assert ([base64.b64encode(b"\x89PNG").decode()], {"content_type": "base64"}) == (image["data"], image["parameters"])


def test_a_refusal_has_no_outputs_and_its_status() -> None:
    found = infer(client_of(lambda _: httpx2.Response(400, json={"error": "no image"})), "m", [X])

    assert (400, ()) == (found.reply.status, found.outputs)


@pytest.mark.parametrize("body", [b"{}", b"[1, 2]", b"text", b'{"outputs": [{}]}', b'{"outputs": []}'])
def test_an_answer_that_is_not_in_the_protocol_is_an_error_that_shows_it(body: bytes) -> None:
    with pytest.raises(ServerError, match="m does not answer in the Open Inference Protocol: b"):
        infer(client_of(lambda _: httpx2.Response(200, content=body)), "m", [X])
