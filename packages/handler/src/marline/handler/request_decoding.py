"""Decodes request bodies, strictly: nothing in them is executed, and nothing large is unpacked before it was measured.

What a preprocess function receives, by what was sent and whatever its Content-Type says (JSON apart):

| sent | received |
|---|---|
| JPEG, PNG or WebP | a PIL image |
| `.npy` | a tensor (fractions as float32) |
| safetensors | a tensor, or a dict of tensors where there are several |
| WAV | `Audio`: samples float32 [n] from -1 to 1, and their rate |
| JSON list or number | a float32 tensor |
| any other JSON value | as it is |
| UTF-8 text | str |

JSON may wrap one of these as `{"data": ...}`, `{"body": ...}` or `{"instances": [one]}`, and bytes as `{"b64": "..."}`; a form
sends it as the field `data` or `body`. A body of the Open Inference Protocol is decoded by `open_inference.py`. gRPC, which has
no Content-Type, may say it in a field `content-type`. Goes into every archive beside `base_handler.py`.
"""

import base64
import json
import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from body_formats import Audio, BadRequestError, decode_bytes, is_known
from open_inference import is_open_inference, read_inputs

__all__ = ["Audio", "BadRequestError", "content_type", "decode", "from_base64", "open_body", "parameters_of", "parsed", "shown"]
PAYLOAD = ("data", "body", "instances")
KIND = "content-type"
LONGEST_SHOWN = 100  # characters


def content_type(context: Any, index: int, request: Mapping[str, Any]) -> str:
    """What a request says its body is; empty where TorchServe's context does not know and no field says it."""
    if KIND in request:
        told_there = request[KIND]
        return told_there.decode(errors="replace") if isinstance(told_there, bytes | bytearray) else str(told_there)
    headers = context.get_all_request_header(index)
    told: Mapping[str, Any] = next((headers[key] for key in PAYLOAD if isinstance(headers.get(key), Mapping)), {})
    return str(told.get("content-type") or "")


def parsed(request: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """A request whose JSON is read, also where the frontend leaves that to us (`decode_input_request=false`)."""
    key = _key(request)
    if key is None or not kind.startswith("application/json") or not isinstance(request[key], bytes | bytearray):
        return request
    try:
        return {**request, key: json.loads(request[key].decode())}  # UTF-8 without a mark, as RFC 8259 has it
    except (ValueError, RecursionError):
        return request  # `decode` says what is wrong with it


def decode(request: Mapping[str, Any], kind: str = "") -> Any:
    """The payload of one request, see the top of this file; `kind` is its Content-Type."""
    value = _payload(parsed(request, kind))
    if kind.startswith("application/json") and isinstance(value, bytes | bytearray) and not is_known(value):
        _refuse_json(value)
    if is_open_inference(value):
        return read_inputs(value, from_base64)
    for _ in range(2):  # {"instances": [{"data": ...}]}
        value = _unwrapped(value)
    if isinstance(value, Mapping) and set(value) == {"b64"}:
        return from_base64(value["b64"])
    if isinstance(value, bytes | bytearray):
        return decode_bytes(bytes(value))
    if isinstance(value, list | int | float) and not isinstance(value, bool):
        return _numbers(value)
    if value is None or value == "":
        raise BadRequestError("the request has no body")
    try:
        wrong = _wrong(value)
    except RecursionError:
        raise BadRequestError("the JSON body is nested too deeply") from None
    if wrong is not None:
        raise BadRequestError(f"the JSON body holds {wrong}")
    return value


def parameters_of(request: Mapping[str, Any], texts: Collection[str] = ()) -> dict[str, Any]:
    """What a request says beside its payload: `parameters` and other members of its JSON, form fields, the query string.

    A form field or a part of the query is read as JSON, except for those named in `texts`. TorchServe's `/invocations` has its
    own `model_name` there.
    """
    body = _payload(request)
    told = {key: _literal(value, key in texts) for key, value in request.items() if key not in (*PAYLOAD, KIND, "model_name")}
    if is_open_inference(body):
        told["parameters"] = body.get("parameters") or {}
    elif isinstance(body, Mapping) and _key(body) is not None:
        told |= {key: value for key, value in body.items() if key not in PAYLOAD}
    inner = told.pop("parameters", {})
    if not isinstance(inner, Mapping):
        raise BadRequestError("`parameters` is no JSON object")
    return {**told, **inner}


def from_base64(text: Any) -> Any:
    """Bytes in base64 (the standard or the URL-safe alphabet, with or without line ends), decoded like a body of their own."""
    if not isinstance(text, str):
        raise BadRequestError(f"base64 is a text, got {type(text).__name__}")
    plain = "".join(text.split()).replace("-", "+").replace("_", "/")
    try:
        body = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError as error:  # of characters that are not ASCII too
        raise BadRequestError(f"the base64 cannot be decoded: {error}") from None
    return decode_bytes(body)


def open_body(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The body of a request whose JSON is read, where it is one of the Open Inference Protocol."""
    body = _payload(request)
    return body if is_open_inference(body) else None


def shown(value: Any) -> str:
    """A client's value for a message: what is wrong with it must not be megabytes."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of too many digits
        return type(value).__name__
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _key(request: Mapping[str, Any]) -> str | None:
    return next((key for key in PAYLOAD if key in request), None)


def _payload(request: Mapping[str, Any]) -> Any:
    key = _key(request)
    return None if key is None else request[key]


def _unwrapped(value: Any) -> Any:
    """The one thing that `{"data": ...}` and its kin wrap, which may have parameters beside it."""
    if not isinstance(value, Mapping) or _key(value) is None:
        return value
    if "instances" not in value:
        return _payload(value)
    instances = value["instances"]
    if not isinstance(instances, list) or len(instances) != 1:
        raise BadRequestError("`instances` must hold one instance: send each in a request of its own, the server makes batches")
    return instances[0]


def _refuse_json(body: bytes | bytearray) -> None:
    try:
        json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise BadRequestError(f"the JSON body cannot be read: {error}") from None


def _literal(value: Any, is_text: bool) -> Any:
    """A form field or a part of the query as JSON reads it, else as text."""
    text = value.decode(errors="replace") if isinstance(value, bytes | bytearray) else value
    try:
        return json.loads(text) if isinstance(text, str) and not is_text else text
    except (ValueError, RecursionError):
        return text


def _wrong(value: Any) -> str | None:
    """What Python's reader of JSON lets through and nobody can use, if there is any."""
    if isinstance(value, float):
        return None if math.isfinite(value) else "NaN or Infinity, which JSON has not"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return f"half a character, {value[error.start]!a}"
        return None
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    return next(filter(None, map(_wrong, value)), None) if isinstance(value, list) else None


def _numbers(value: Any) -> torch.Tensor:
    try:
        numbers = torch.tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise BadRequestError(f"the list is not a tensor: {error}") from None
    if not numbers.isfinite().all():
        raise BadRequestError("the list holds NaN, Infinity or a number too large for float32")
    return numbers
