"""The Open Inference Protocol (KServe's V2) as TorchServe 0.12 has it, over REST and over gRPC.

A server answers it fully with `deploy.open_inference=true`; REST's `infer` is there without. What differs from the standard:

- gRPC's service is `org.pytorch.serve.grpc.openinference.GRPCInferenceService`, not `inference.GRPCInferenceService`: clients
  made for other servers find nothing. `raw_input_contents`, thus FP16 and BF16, and parameters do not reach a handler.
- ServerReady is always true, and so is ModelReady of a model without workers: readiness is in `describe`. Of the metadata there
  is name and version alone; REST has none, nor a path for a version or a model's readiness.
- A handler that does not answer in this protocol has its worker killed by gRPC's ModelInfer. Every handler of ours does.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from marline.core import ServerError
from marline.deploy._client import DEADLINE_S, Client, Reply
from marline.deploy._grpc import GrpcClient, own_status, refused
from marline.deploy._protocol import message

SERVICE = "openinference.GRPCInferenceService"
FIELDS = {  # of InferTensorContents, by datatype
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of one sample, so without a batch dimension; `data` is flat, in C order, for BYTES texts or bytes."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Inference:
    """An answer: `reply` as it came, and the outputs where it is one."""

    reply: Reply
    outputs: tuple[Tensor, ...] = ()
    request_id: str = ""
    model_version: str = ""


def infer(
    client: Client | GrpcClient, model: str, inputs: Sequence[Tensor], *, request_id: str = "", deadline_s: float = DEADLINE_S
) -> Inference:
    """Ask for one inference; ServerError where nothing comes back or where it is not in this protocol."""
    if isinstance(client, GrpcClient):
        reply = _over_grpc(client, model, inputs, request_id, deadline_s)
    else:
        reply = _over_rest(client, model, inputs, request_id, deadline_s)
    if reply.status != 200:
        return Inference(reply)
    try:
        told = json.loads(reply.body)
        outputs = tuple(_output(one) for one in told["outputs"])
        return Inference(reply, outputs, told["id"], told["model_version"])
    except (ValueError, KeyError, TypeError):
        raise ServerError(f"{model} does not answer in the Open Inference Protocol: {reply.body[:200]!r}") from None


def model_ready(client: GrpcClient, model: str, deadline_s: float = 2.0) -> bool:
    """What TorchServe calls ready over this protocol; False for an unknown model too, ServerError where nothing comes back."""
    asked = message("openinference.ModelReadyRequest")(name=model)
    try:
        return bool(client.call("inference", SERVICE, "ModelReady", asked, deadline_s).ready)
    except grpc.RpcError as error:
        reply = refused(error, f"ModelReady of {model}", deadline_s)
        if reply.status == 404:
            return False
        raise ServerError(f"TorchServe answers {reply.status} to ModelReady of {model}: {reply.body.decode()}") from None


def _over_rest(client: Client, model: str, inputs: Sequence[Tensor], request_id: str, deadline_s: float) -> Reply:
    told = {"inputs": [_as_json(one) for one in inputs], **({"id": request_id} if request_id else {})}
    body = json.dumps(told, allow_nan=False).encode()
    return client.post(f"/v2/models/{model}/infer", body, "application/json", deadline_s)


def _as_json(tensor: Tensor) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "datatype": tensor.datatype,
        "data": list(tensor.data),
    }
    if any(isinstance(one, bytes) for one in tensor.data):  # JSON has no bytes; this is how other servers name base64 too
        told["data"] = [base64.b64encode(_bytes(one)).decode() for one in tensor.data]
        told["parameters"] = {"content_type": "base64"}
    return told


def _over_grpc(client: GrpcClient, model: str, inputs: Sequence[Tensor], request_id: str, deadline_s: float) -> Reply:
    """The answer brought to REST's form."""
    asked = message("openinference.ModelInferRequest")(model_name=model, id=request_id)
    for tensor in inputs:
        if tensor.datatype not in FIELDS:
            raise ServerError(
                f"{tensor.name}: TorchServe 0.12 takes no {tensor.datatype} over gRPC; known are {', '.join(FIELDS)}"
            )
        one = asked.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        values = map(_bytes, tensor.data) if tensor.datatype == "BYTES" else tensor.data
        getattr(one.contents, FIELDS[tensor.datatype]).extend(values)
    try:
        found = client.call("inference", SERVICE, "ModelInfer", asked, deadline_s)
    except grpc.RpcError as error:
        return refused(error, f"ModelInfer of {model}", deadline_s)
    outputs = [_told(one) for one in found.outputs]
    if [one["name"] for one in outputs] == ["error"] and outputs[0]["datatype"] == "BYTES":
        said = outputs[0]["data"][0].encode()
        if own_status(said) != 200:
            return Reply(own_status(said), said)
    body = {"id": found.id, "model_name": found.model_name, "model_version": found.model_version, "outputs": outputs}
    return Reply(200, json.dumps(body).encode())


def _told(output: Any) -> dict[str, Any]:
    """An output of gRPC as REST has it; TorchServe puts texts in there as JSON, with their quotes."""
    data = list(getattr(output.contents, FIELDS.get(output.datatype, "bytes_contents")))
    texts = [json.loads(one) for one in data] if output.datatype == "BYTES" else data
    return {"name": output.name, "shape": list(output.shape), "datatype": output.datatype, "data": texts}


def _output(told: Any) -> Tensor:
    return Tensor(told["name"], tuple(told["shape"]), told["datatype"], tuple(told["data"]))


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
