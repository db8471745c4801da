"""Calls of every gRPC method that TorchServe's own descriptors name, with messages and tokens nobody would send."""

import random
import string
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import message_factory

from marline.deploy import Client
from marline.deploy._grpc import STRANGER
from marline.deploy._protocol import services

MISSING = "Method not found"  # at this address; one that TorchServe declares and has not written says "is unimplemented"
DEADLINE_S = 2.0  # of one call: some streams never end by themselves
MODEL = "sums"
NOBODY = ("", "nobody", ".", "..", "../..", "\x00", "\u2603", "%2e%2f", "*", "-1", "x" * 5_000, "${jndi:ldap://127.0.0.1:1/a}")
NAMES = (MODEL, MODEL, MODEL, MODEL.upper(), f"{MODEL}/1.0", f"../{MODEL}", f"{MODEL}\n", *NOBODY)
VERSIONS = ("", "1.0", "1", "all", "-1", "9" * 400, "../1.0", "\x00", "\u2603")
STORE = (".", "/", "./", "jar:file:///a.mar!/")  # without a file name: the store itself becomes a model
URLS = (
    *("", "a.mar", "../a.mar", "file:///etc/passwd", "file:///proc/self/environ", "http://127.0.0.1:1/a.mar"),
    *("https://127.0.0.1:1/a.mar", "s3://a/a.mar", "file://../../a.mar", "\x00.mar", "x" * 5_000),
)
TEXTS = ("", "[1, 2, 3, 4]", "{", "null", "NaN", "\x00", "\u2603" * 100, "FP32", "BYTES", "application/json", "content-type")
WHOLE = (0, 1, 2, 7, 255, 2**31 - 1)
REAL = (0.0, -1.0, float("nan"), float("inf"))
# With the token of an address these name no model that is there: what changes one may do so then, and TorchServe 0.12 loses a
# worker to every StreamPredictions and a model to StreamPredictions2 (README).
HARMFUL = {"RegisterModel", "UnregisterModel", "ScaleWorker", "SetDefault", "StreamPredictions", "StreamPredictions2"}


@dataclass(frozen=True, slots=True)
class Calls:
    """One address, called with its own token, or with anything that is not it."""

    address: str  # inference | management
    authorised: bool

    def __str__(self) -> str:
        return f"gRPC {self.address} address, {'its own token' if self.authorised else 'other tokens and none'}"


CALLS = tuple(Calls(address, authorised) for address in ("inference", "management") for authorised in (False, True))


def exposed(address: str) -> list[Any]:
    """The methods that TorchServe's .proto files have for an address."""
    return [
        method
        for service in services()
        if (address == "management") == ("management" in service.full_name)
        for method in service.methods
    ]


def called(client: Client, told: Calls, seconds: float, old: Sequence[str], seed: int) -> dict[str, Any]:
    """Call for so many seconds, every method once at least: the `statuses`, and by method what was `asked`, `let_in`, `served`.

    `old` are tokens that a renewal replaced.
    """
    chance, statuses = random.Random(seed), Counter[str]()
    asked, let_in, served = Counter[str](), Counter[str](), Counter[str]()
    methods, end = exposed(told.address), time.monotonic() + seconds
    headers = [f"Bearer {getattr(client.tokens, told.address)}"] if told.authorised else _strangers(client, told.address, old)
    place = {"inference": client.grpc_inference, "management": client.grpc_management}[told.address]
    with grpc.insecure_channel(place, (("grpc.enable_http_proxy", 0),)) as channel:
        while True:
            for method in chance.sample(methods, len(methods)):
                harmless = not told.authorised or method.name not in HARMFUL
                payloads = [_payload(method.input_type, chance, harmless=harmless) for _ in range(chance.randint(1, 3))]
                code, said = _send(channel, method, payloads, chance.choice(headers))
                statuses[code] += 1
                asked[method.full_name] += 1
                if STRANGER not in said and MISSING not in said:
                    served[method.full_name] += 1
                    let_in[method.full_name] += not told.authorised
            if time.monotonic() >= end:
                break
    return {"statuses": dict(statuses), "asked": asked, "let_in": +let_in, "served": served}


def _strangers(client: Client, address: str, old: Sequence[str]) -> list[str | None]:
    """What to say in place of an address's own token; None for nothing."""
    right, other = (getattr(client.tokens, kind) for kind in (address, {"inference": "management"}.get(address, "inference")))
    tokens = ("", " ", "null", "*", "x" * 5_000, other, client.tokens.api, right[:-1], right + right[0], right.swapcase(), *old)
    return [None, "", "Bearer", right, f"Bearer{right}", *(f"Bearer {token}" for token in tokens if token != right)]


def _send(channel: Any, method: Any, payloads: list[bytes], header: str | None) -> tuple[str, str]:
    """The status of one call, and what was said with it; its deadline is gRPC's own, and over the whole of it."""
    streams = (method.client_streaming, method.server_streaming)
    kind = "_".join("stream" if stream else "unary" for stream in streams)
    path = f"/{method.containing_service.full_name}/{method.name}"
    metadata = (("protocol", "gRPC"), *((("authorization", header),) if header is not None else ()))
    send = getattr(channel, kind)(path)
    asked = iter(payloads) if method.client_streaming else payloads[0]
    try:
        answer = send(asked, timeout=DEADLINE_S, metadata=metadata)
        for _ in answer if method.server_streaming else ():
            pass
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


def _payload(kind: Any, chance: random.Random, *, harmless: bool) -> bytes:
    """A message as bytes, now and then damaged; where it may do harm it is whole and names no model that is there."""
    content = bytearray(_message(kind, chance, harmless=harmless).SerializeToString())
    if harmless and chance.random() < 0.2:
        for _ in range(chance.randint(1, 4)):
            content.insert(chance.randint(0, len(content)), chance.randrange(256))
    return bytes(content)


def _message(kind: Any, chance: random.Random, *, harmless: bool) -> Any:
    made = message_factory.GetMessageClass(kind)()
    for field in kind.fields:
        if chance.random() < 0.2:
            continue
        place = getattr(made, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill(place, field.message_type, chance, harmless=harmless)
        elif field.is_repeated:
            place.extend([_value(field, chance, harmless=harmless) for _ in range(chance.randint(0, 3))])
        elif field.message_type is not None:
            place.CopyFrom(_value(field, chance, harmless=harmless))
        else:
            setattr(made, field.name, _value(field, chance, harmless=harmless))
    return made


def _fill(place: Any, entry: Any, chance: random.Random, *, harmless: bool) -> None:
    """Put into a map what a handler may look for, and what it does not."""
    value = entry.fields_by_name["value"]
    for key in chance.sample(("data", "body", "content-type", "", "\u2603"), chance.randint(0, 3)):
        if value.message_type is not None:
            place[key].CopyFrom(_value(value, chance, harmless=harmless))
        else:
            place[key] = _value(value, chance, harmless=harmless)


def _value(field: Any, chance: random.Random, *, harmless: bool) -> Any:
    """One value of a field's type; numbers are mostly small ones."""
    if field.message_type is not None:
        return _message(field.message_type, chance, harmless=harmless)
    if field.cpp_type == field.CPPTYPE_STRING:
        return _text(field, chance, harmless=harmless)
    if field.cpp_type == field.CPPTYPE_BOOL:
        return chance.random() < 0.5
    if field.cpp_type in {field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT}:
        return chance.choice(REAL)
    unsigned = field.cpp_type in {field.CPPTYPE_UINT32, field.CPPTYPE_UINT64}
    return chance.choice(WHOLE) * (1 if unsigned or chance.random() < 0.7 else -1)


def _text(field: Any, chance: random.Random, *, harmless: bool) -> str | bytes:
    if field.type == field.TYPE_BYTES:
        return chance.choice([chance.randbytes(chance.randint(0, 300)), *(text.encode() for text in TEXTS)])
    known: dict[str, tuple[str, ...]] = {
        "model_name": NAMES if harmless else NOBODY,
        "name": NAMES,
        "url": (*URLS, *STORE) if harmless else URLS,
    }
    known |= {"version": VERSIONS, "model_version": VERSIONS}
    made = "".join(chance.choices(string.printable, k=chance.randint(0, 40)))
    return made if chance.random() < 0.1 and harmless else chance.choice(known.get(field.name, TEXTS))
