"""Reads and answers requests of the Open Inference Protocol (KServe's V2), from REST and gRPC. Goes into every archive.

    {"id": "7", "inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2, 3]}], "parameters": {...}}

A request is one sample, without a batch dimension: the server makes batches. One input is what it would be as a body of its
own (a tensor, a text, an image), several are a dict by name. BYTES hold one element: text, or a body of a known format in
base64 (`"parameters": {"content_type": "base64"}` beside `data`, and over gRPC always, where the frontend encodes them so).

An answer's outputs are numbers, texts, or as a text the JSON of whatever is neither. A refusal has REST's `error` and, beside
it, an output named `error`: TorchServe's frontend kills the worker whose answer to gRPC has no outputs.
"""

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from body_formats import BadRequestError, decode_bytes

TYPES = {
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "INT16": torch.int16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "FP16": torch.float32,  # as in every other format: a model's weights are float32
    "BF16": torch.float32,
    "FP32": torch.float32,
    "FP64": torch.float32,
}
PARTS = {"name", "shape", "datatype", "data"}
FROM_GRPC = "model_name"  # the frontend writes it into the body; REST has it in the path


def is_open_inference(value: Any) -> bool:
    """Whether a JSON body is one of this protocol, right or wrong; other bodies may have a member `inputs` too."""
    inputs = value.get("inputs") if isinstance(value, Mapping) else None
    if not isinstance(inputs, list) or not all(isinstance(one, Mapping) and "datatype" in one for one in inputs):
        return False
    return bool(inputs) or FROM_GRPC in value


def read_inputs(body: Mapping[str, Any], from_base64: Callable[[Any], Any]) -> Any:
    """What a preprocess function gets; BadRequestError where an input is not what it says."""
    found = {str(one.get("name")): _value(one, from_base64, by_grpc=FROM_GRPC in body) for one in body["inputs"]}
    if not found:
        raise BadRequestError("there are no inputs")
    if len(found) != len(body["inputs"]):
        raise BadRequestError("two inputs have the same name")
    return next(iter(found.values())) if len(found) == 1 else found


def answered(body: Mapping[str, Any], model: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The answer to a request; `model` is TorchServe's manifest of it, `value` what JSON can express."""
    named = value.items() if isinstance(value, Mapping) and value else [(key, value)]
    return {**_head(body, model), "outputs": [_output(str(name), one) for name, one in named]}


def refused(body: Mapping[str, Any], model: Mapping[str, Any], error: Mapping[str, Any]) -> dict[str, Any]:
    """The refusal of a request."""
    return {"error": error["message"], **error, **_head(body, model), "outputs": [_text("error", json.dumps(error))]}


def _head(body: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, str]:
    names = {"model_name": str(model.get("modelName", "")), "model_version": str(model.get("modelVersion", ""))}
    return {"id": str(body.get("id") or ""), **names}


def _value(told: Mapping[str, Any], from_base64: Callable[[Any], Any], *, by_grpc: bool) -> Any:
    missing = PARTS - set(told)
    if missing:
        raise BadRequestError(f"an input has no {', '.join(sorted(missing))}")
    name, shape, kind, data = (told[part] for part in ("name", "shape", "datatype", "data"))
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise BadRequestError(f"input {name}: no shape: {str(shape)[:100]}")
    if kind == "BYTES":
        return _bytes(name, data, told.get("parameters"), from_base64, by_grpc=by_grpc)
    if kind not in tuple(TYPES):  # a list cannot be looked up
        raise BadRequestError(f"input {name}: datatype {str(kind)[:100]}; known are BYTES, {', '.join(TYPES)}")
    try:
        tensor = torch.tensor(data, dtype=TYPES[kind]).flatten()
    except (TypeError, ValueError, RuntimeError, OverflowError, RecursionError) as error:
        raise BadRequestError(f"input {name}: {error}") from None
    if tensor.numel() != math.prod(shape):
        raise BadRequestError(f"input {name}: {tensor.numel()} numbers for the shape {shape}")
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise BadRequestError(f"input {name}: NaN, Infinity or a number too large for float32")
    return tensor.view(shape)


def _bytes(name: Any, data: Any, parameters: Any, from_base64: Callable[[Any], Any], *, by_grpc: bool) -> Any:
    if not isinstance(data, list) or len(data) != 1 or not isinstance(data[0], str):
        raise BadRequestError(f"input {name}: BYTES hold one text: one request is one sample")
    if by_grpc or (isinstance(parameters, Mapping) and parameters.get("content_type") == "base64"):
        return from_base64(data[0])
    try:
        return decode_bytes(data[0].encode())
    except UnicodeEncodeError:
        raise BadRequestError(f"input {name}: the text holds half a character") from None


def _output(name: str, value: Any) -> dict[str, Any]:
    """A value of JSON as a tensor: numbers, truths, a text, or the text of whatever JSON is none of these."""
    if isinstance(value, str):
        return _text(name, value)
    flat, shape = _flattened(value)
    kinds = {type(one) for one in flat or ()}
    datatype = "BOOL" if kinds == {bool} else "INT64" if kinds == {int} else "FP64"
    if flat is None or not (kinds <= {int, float} or kinds == {bool}):
        return _text(name, json.dumps(value, allow_nan=False))
    return {"name": name, "shape": shape or [1], "datatype": datatype, "data": flat}


def _text(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "shape": [1], "datatype": "BYTES", "data": [text]}


def _flattened(value: Any) -> tuple[list[Any] | None, list[int]]:
    """All numbers of nested lists and their shape; None where the lists are ragged."""
    if not isinstance(value, list):
        return [value], []
    parts = [_flattened(one) for one in value]
    if any(flat is None or shape != parts[0][1] for flat, shape in parts):
        return None, []
    return [one for flat, _ in parts for one in flat or ()], [len(value), *(parts[0][1] if parts else [])]
