"""Requests as users send them: what arrives at a preprocess function, and what is answered without one."""

import base64
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from marline.handler import FakeContext, imported

Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]
HERE = Path(__file__).parents[1] / "src" / "marline" / "handler"
SAMPLES = Path(__file__).parents[3] / "models" / "digits_cnn" / "samples"
with imported(HERE, "request_decoding") as decoding:
    BadRequestError, decode, parameters_of, parsed = (
        decoding.BadRequestError,
        decoding.decode,
        decoding.parameters_of,
        decoding.parsed,
    )

SIX = (SAMPLES / "0_is_6.png").read_bytes()
B64 = base64.b64encode(SIX).decode()
TWO = save({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3]])})
JSON = "application/json"


@pytest.fixture
def plain(own: Open, tmp_path: Path) -> Any:
    """A handler with no preprocess at all, around a network that changes nothing."""
    instance = own("import torch\nfrom base_handler import handler_factory\nhandler = handler_factory(torch.nn.Identity)\n")
    instance.initialize(FakeContext(tmp_path / "archive"))
    return instance


def told(value: Any) -> Any:
    """What arrived, in words and lists."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype).removeprefix("torch."), value.tolist()
    if isinstance(value, Mapping):
        return {key: told(one) for key, one in value.items()}
    if isinstance(value, decoding.Audio):
        return type(value).__name__, value.samples.tolist(), value.rate
    return (type(value).__name__, value.size) if hasattr(value, "getpixel") else value


@pytest.mark.parametrize(
    ("sent", "received", "answer"),
    [
        ("PNG", ("PngImageFile", (8, 8)), "got PngImageFile"),
        ("npy", ("int32", [[1, 2]]), [[1, 2]]),
        ("npy fractions", ("float32", [0.5]), [0.5]),
        ("safetensors", ("float32", [1.0]), [1.0]),
        ("two safetensors", {"a": ("float32", [1.0, 2.0]), "b": ("int64", [[3]])}, None),
        ("WAV", ("Audio", [0.5, -0.5], 8000), "got Audio"),
        ("list", ("float32", [1.0, 2.0]), [1.0, 2.0]),
        ("number", ("float32", 3.0), 3.0),
        ("object", {"text": "a", "deep": [1, None, True]}, "got dict"),
        ("word", "word", "got str"),
        ("truth", True, "got bool"),
        ("text", "naïve", "got str"),
    ],
)
def test_what_arrives_for_each_kind(
    plain: Any,
    ask: Ask,
    npy: Callable[[Any], bytes],
    wav: Callable[..., bytes],
    sent: str,
    received: Any,
    answer: Any,
) -> None:
    """The table at the top of `request_decoding.py`, and what an archive without a preprocess function answers."""
    import numpy as np

    bodies: dict[str, Any] = {
        "PNG": SIX,
        "npy": npy(np.array([[1, 2]], "<i4")),
        "npy fractions": npy(np.array([0.5])),
        "safetensors": save({"x": torch.ones(1)}),
        "two safetensors": TWO,
        "WAV": wav([16384, -16384], 8000),
        "list": [1, 2.0],
        "number": 3,
        "object": {"text": "a", "deep": [1, None, True]},
        "word": "word",
        "truth": True,
        "text": "naïve".encode(),
    }

    arrived = told(decode({"body": bodies[sent]}))
    answers, _ = ask(plain, bodies[sent])

    assert received == arrived
    if isinstance(answer, str):
        assert answers[0]["message"].endswith(answer)
    elif answer is not None:
        assert {"output": answer} == answers[0]


LINES = "\n".join(B64[at : at + 76] for at in range(0, len(B64), 76)) + "\r\n"
URL_SAFE = base64.urlsafe_b64encode(SIX).decode()


@pytest.mark.parametrize(
    "request_",
    [
        {"body": SIX},
        {"data": bytearray(SIX)},
        {"body": {"b64": B64}},
        {"body": {"data": {"b64": B64}}},
        {"body": {"body": {"b64": B64}}},
        {"body": {"instances": [{"b64": B64}]}},
        {"body": {"instances": [{"data": {"b64": B64}}]}},
        {"body": {"data": {"b64": LINES}, "parameters": {}}},
        {"body": {"b64": URL_SAFE}},
        {"body": {"b64": B64.rstrip("=")}},
        {"body": {"b64": " ".join(B64)}},
        {"instances": SIX},
    ],
    ids=[
        *("body", "data", "base64", "in data", "in body", "in instances", "data in instances", "with line ends"),
        *("URL-safe", "without its end", "with spaces", "a form's field instances"),
    ],
)
def test_an_image_is_the_same_in_every_wrapping(request_: dict[str, Any]) -> None:
    image = decode(request_)

    assert decode({"body": SIX}).tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"b64": "*" * 8}, "the base64 cannot be decoded"),
        ({"b64": "naïve"}, "the base64 cannot be decoded"),
        ({"b64": "A"}, "the base64 cannot be decoded"),
        ({"b64": ""}, "the request has no body"),
        ({"b64": 3}, "base64 is a text, got int"),
        ({"b64": base64.b64encode(b"\xff\xfe").decode()}, "the body is neither JPEG"),
        ({"instances": []}, "`instances` must hold one instance"),
        ({"instances": [1, 2]}, "`instances` must hold one instance"),
        ({"instances": {"b64": B64}}, "`instances` must hold one instance"),
        ({"data": None}, "the request has no body"),
        ({"data": ""}, "the request has no body"),
        (None, "the request has no body"),
        (b"", "the request has no body"),
        ({"deep": [{"a": float("nan")}]}, "the JSON body holds NaN or Infinity"),
        ({"deep": {"a": [1.0, float("inf")]}}, "the JSON body holds NaN or Infinity"),
        ("a\udfff", "the JSON body holds half a character, '\\udfff'"),
        ({"deep": [{"\ud800": 1}]}, "the JSON body holds half a character"),
        ([1.0, float("nan")], "the list holds NaN"),
        (10**400, "the list is not a tensor"),
    ],
)
def test_a_body_that_is_none_is_refused(plain: Any, ask: Ask, body: Any, message: str) -> None:
    answers, context = ask(plain, [1.0], body)

    assert {1: (400, "Bad Request")} == context.statuses
    assert answers[1]["message"].startswith(message)
    assert {"output": [1.0]} == answers[0]


def nested(depth: int, kind: type) -> Any:
    value: Any = kind()
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
@pytest.mark.parametrize("depth", [900, 5_000])
def test_json_that_is_nested_deeply_is_refused(plain: Any, ask: Ask, kind: type, depth: int) -> None:
    """TorchServe reads nearly a thousand levels itself."""
    assert 400 == ask(plain, nested(depth, kind))[0][0]["code"]


MALFORMED = {
    "a comma too many": b'{"data": [1, 2,]}',
    "a mark of byte order": '\ufeff{"data": [1]}'.encode(),
    "UTF-16": '{"data": [1]}'.encode("utf-16"),
    "UTF-32": '{"data": [1]}'.encode("utf-32"),
    "Latin-1": '{"data": "naïve"}'.encode("latin-1"),
    "half": b'{"data": [1',
    "a word": b"word",
    "nothing": b"",
    "depth": b"[" * 100_000,
    "digits": b"1" * 5_000,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_called_json_and_is_none_is_refused(plain: Any, ask: Ask, name: str) -> None:
    """TorchServe hands on the bytes of what it cannot read."""
    context = FakeContext(Path(), headers={0: {"body": {"content-type": JSON}}})

    (text,) = plain.handle([{"body": bytearray(MALFORMED[name])}], context)

    assert {0: (400, "Bad Request")} == context.statuses
    assert json.loads(text)["message"].startswith("the JSON body cannot be read")


def test_an_image_that_is_called_json_is_read_as_what_it_is() -> None:
    assert (8, 8) == decode({"body": bytearray(SIX)}, JSON).size


def test_json_that_the_frontend_left_unread_is_read_with_its_parameters() -> None:
    """As with `decode_input_request=false`."""
    request = parsed({"body": b'{"data": [1, 2], "target": 3}'}, JSON)

    assert [1.0, 2.0] == decode(request, JSON).tolist()
    assert {"target": 3} == parameters_of(request)


def test_a_million_keys_are_one_bad_request_and_the_last_of_one_name_wins(plain: Any, ask: Ask) -> None:
    many = json.loads("{" + ",".join(f'"{index}":0' for index in range(1_000_000)) + "}")

    answers, _ = ask(plain, many, json.loads('{"data": [1], "data": [2]}'))

    assert "got dict" in answers[0]["message"]
    assert len(answers[0]["message"]) < 300
    assert {"output": [2.0]} == answers[1]


def test_a_header_that_is_called_like_a_field_changes_nothing(plain: Any) -> None:
    context = FakeContext(Path(), headers={0: {"data": "x", "body": "application/json", "instances": "y"}})

    assert ['{"output":[1.0]}'] == plain.handle([{"body": [1.0]}], context)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "body", "instances", "b64", "parameters", "a"]) | st.text(), inner, max_size=4
        )
    ),
    max_leaves=12,
)
KINDS = st.sampled_from(["", JSON, "text/plain", "application/json; charset=utf-8"])


@given(st.dictionaries(st.sampled_from(["data", "body", "instances", "target", "parameters"]), VALUES, max_size=3), KINDS)
def test_any_request_is_decoded_or_refused(request_: dict[str, Any], kind: str) -> None:
    with suppress(BadRequestError):
        decode(request_, kind)
    with suppress(BadRequestError):
        parameters_of(parsed(request_, kind))


@given(st.binary(max_size=200), KINDS)
def test_any_bytes_are_decoded_or_refused_whatever_they_are_called(body: bytes, kind: str) -> None:
    with suppress(BadRequestError):
        decode({"body": body}, kind)


@given(VALUES)
def test_json_is_the_same_read_by_the_frontend_or_by_us(value: Any) -> None:
    try:
        text = json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError):
        return

    def answer(request: dict[str, Any]) -> Any:
        try:
            return told(decode(request, JSON))
        except BadRequestError as error:
            return str(error)

    assert answer({"body": json.loads(text)}) == answer({"body": text})
