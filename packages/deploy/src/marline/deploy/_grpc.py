"""Speaks to one TorchServe over gRPC. What it says is brought to the numbers of HTTP, so that one table explains both.

Facts of 0.12 that shape this: a full queue and an unknown model are INTERNAL, a worker killed by SIGKILL RESOURCE_EXHAUSTED, a
message that is too large is reset without a word, and the status of one request in a batch is lost: what our handler refuses
arrives as OK with the refusal as its body. A PredictionException's own code is lost too. Both streams do harm (README).
"""

import json
import time
from typing import Any, Self

import grpc

from marline.core import ServerError
from marline.deploy._answers import NO_CAPACITY, TOKEN
from marline.deploy._client import DEADLINE_S, Client, Reply, Status, status_of
from marline.deploy._protocol import call, message

OPTIONS = (
    ("grpc.enable_http_proxy", 0),  # loopback
    ("grpc.max_receive_message_length", -1),  # 4 MB otherwise; the server has a bound of its own
    ("grpc.max_send_message_length", -1),
)
STRANGER = "Token Authorization failed"
REFUSAL = {"code", "type", "message"}
STATUSES = {  # TorchServe's own table, backwards
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 507,  # 413 inside TorchServe, which REST answers with 507
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
}
WORDS = {  # said in a text, whatever the code
    NO_CAPACITY: 503,
    "NotFoundException": 404,
    "BadRequestException": 400,
    "Out of resources": 507,
    "RST_STREAM with error code 8": 413,
    **dict.fromkeys(TOKEN, 400),
}


class GrpcClient:
    """Requests with a deadline each, over one connection to each address; close it, or use it as a context."""

    def __init__(self, client: Client) -> None:
        """Speak to the server of a REST client, with its tokens."""
        if not client.grpc_inference or not client.grpc_management:
            raise ServerError(f"the gRPC addresses of the server at {client.inference_url} are not known")
        self.addresses = {"inference": client.grpc_inference, "management": client.grpc_management}
        self.tokens = client.tokens
        self._channels = {name: grpc.insecure_channel(place, OPTIONS) for name, place in self.addresses.items()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close both connections; calls that still wait end."""
        for channel in self._channels.values():
            channel.close()

    def predict(
        self, model: str, body: bytes, content_type: str, deadline_s: float = DEADLINE_S, *, version: str | None = None
    ) -> Reply:
        """Send one request body and return whatever comes back; ServerError where nothing does."""
        told = {"data": body}
        if content_type.startswith("application/json"):  # all else is known by its first bytes, and gRPC has no such header
            told["content-type"] = content_type.encode()
        asked = message("inference.PredictionsRequest")(model_name=model, model_version=version, input=told)
        try:
            found = self.call("inference", "inference.InferenceAPIsService", "Predictions", asked, deadline_s).prediction
        except grpc.RpcError as error:
            return refused(error, f"Predictions of {model}", deadline_s)
        return Reply(own_status(found), found)

    def describe(self, model: str, version: str | None = None) -> Status | None:
        """How a version stands, the default one where none is named; None where there is no such model or version."""
        asked = message("management.DescribeModelRequest")(model_name=model, model_version=version)
        try:
            told = self.call("management", "management.ManagementAPIsService", "DescribeModel", asked, DEADLINE_S).msg
        except grpc.RpcError as error:
            reply = refused(error, f"DescribeModel of {model}", DEADLINE_S)
            if reply.status == 404:
                return None
            raise ServerError(f"TorchServe answers {reply.status} to DescribeModel of {model}: {reply.body.decode()}") from None
        return status_of(json.loads(told)[0])

    def ping(self, deadline_s: float = 2.0) -> bool:
        """What TorchServe calls healthy, which says nothing of workers (see `Status`); ServerError where nothing comes."""
        try:
            asked = message("google.protobuf.Empty")()
            told = self.call("inference", "inference.InferenceAPIsService", "Ping", asked, deadline_s).health
        except grpc.RpcError as error:
            raise ServerError(f"TorchServe does not answer Ping: {refused(error, 'Ping', deadline_s).body.decode()}") from None
        return bool(json.loads(told)["status"] == "Healthy")

    def call(self, address: str, service: str, method: str, asked: Any, deadline_s: float) -> Any:
        """One call, once more where its token was refused and there is a newer one; grpc.RpcError where it fails.

        The deadline is gRPC's own, and hard.
        """
        token, end = getattr(self.tokens, address), time.monotonic() + deadline_s
        send = call(self._channels[address], service, method)
        try:
            return send(asked, timeout=deadline_s, metadata=_headers(token))
        except grpc.RpcError as error:
            newer = self.tokens.newer(address, refused=token) if STRANGER in (error.details() or "") else None
            if newer is None:
                raise
        return send(asked, timeout=end - time.monotonic(), metadata=_headers(newer))


def _headers(token: str) -> tuple[tuple[str, str], ...]:
    return (("protocol", "gRPC"), ("authorization", f"Bearer {token}"))


def refused(error: grpc.RpcError, what: str, deadline_s: float) -> Reply:
    """A failed call as HTTP has it; ServerError where nothing came back."""
    code, said = error.code(), error.details() or ""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise ServerError(f"{what} gave no answer within {deadline_s:.0f} s") from TimeoutError(said)
    if code is grpc.StatusCode.UNAVAILABLE and "Exception" not in said:  # ours, not TorchServe's: it ends with a class name
        raise ServerError(f"{what} reached nobody: {said}") from ConnectionError(said)
    status = next((number for word, number in WORDS.items() if word in said), STATUSES.get(code, 500))
    text, _, kind = said.rpartition("\n")
    body = {"code": status, "type": kind.rpartition(".")[2] if text else code.name, "message": text or said}
    return Reply(status, json.dumps(body).encode())


def own_status(body: bytes) -> int:
    """200, or the status with which our handler refused this one request: gRPC has none for one of a batch."""
    if not body.startswith(b'{"code"'):
        return 200
    try:
        told = json.loads(body)
    except ValueError:
        return 200
    return int(told["code"]) if set(told) == REFUSAL and type(told["code"]) is int else 200
