"""Entry by the module's function `handle`; tells what the context says."""

import json
from pathlib import Path
from typing import Any

import torch
from ts.utils.util import PredictionException

MODEL: Any = None


def handle(data: Any, context: Any) -> Any:
    """Load the model where there is no data, else answer a batch."""
    global MODEL  # noqa: PLW0603 - as TorchServe's documentation shows it
    properties = context.system_properties
    folder = Path(properties["model_dir"])
    if data is None:
        MODEL = torch.jit.load(str(folder / context.manifest["model"]["serializedFile"]))  # type: ignore[no-untyped-call]
        return None
    bodies = [row.get("data") or row.get("body") for row in data]
    if any(body == {"data": "raise"} for body in bodies):
        raise PredictionException("Some Prediction Error", 513)
    for index in range(len(data)):
        context.set_response_header(index, "x-request", context.get_request_id(index))
    return [json.dumps(_told(body, index, context, folder)) for index, body in enumerate(bodies)]


def _told(body: Any, index: int, context: Any, folder: Path) -> dict[str, Any]:
    device = "cuda:" + str(context.system_properties.get("gpu_id")) if torch.cuda.is_available() else "cpu"
    return {
        "model": MODEL(torch.tensor(body)).tolist() if isinstance(body, list) else None,
        "model_name": context.model_name,
        "files": sorted(file.name for file in folder.iterdir()),
        "manifest": context.manifest,
        "properties": context.system_properties,
        "config": context.model_yaml_config,
        "device": str(torch.device(device)),
        "request_id": context.get_request_id(index),
        "headers": context.get_all_request_header(index),
    }
