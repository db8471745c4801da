"""Loads what stage export left: a TorchScript file that says of itself how it is to be run. Goes into every archive.

A file made elsewhere says nothing and is run as it is.
"""

import contextlib
import importlib
import json
import logging
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

METADATA = "marline.json"
MOST_BYTES = 32 << 20
LIBRARIES = {"torchvision", "torchaudio"}  # whose operators a graph may need; what an archive names is not just imported
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}

logger = logging.getLogger(__name__)


def read_signature(file: Path | BinaryIO) -> dict[str, Any]:
    """What is written inside a TorchScript file, without loading it; empty where there is nothing.

    ValueError where what is there is not what stage export writes, or larger than a signature and one request are.
    """
    if not zipfile.is_zipfile(file):
        return {}
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if re.fullmatch(rf"[^/]+/extra/{re.escape(METADATA)}", name)]
        if not names:
            return {}
        size = archive.getinfo(names[0]).file_size
        told: Any = None
        if size <= MOST_BYTES:
            with contextlib.suppress(ValueError, RecursionError):  # json's own errors, and those of decoding
                told = json.loads(archive.read(names[0]))
    libraries = told.get("libraries", []) if isinstance(told, dict) else None
    if not isinstance(libraries, list) or not all(isinstance(name, str) for name in libraries):
        raise ValueError(f"{names[0]} ({size} bytes) in {file} is not what stage export writes; export the model again")
    return dict(told)


def load_graph(file: Path, device: torch.device) -> tuple[Any, dict[str, Any]]:
    """The graph in eval mode on `device` and what it says of itself; RuntimeError where the file is no TorchScript."""
    told = read_signature(file)
    for library in told.get("libraries", []):
        if library not in LIBRARIES:
            raise ImportError(f"{file.name} needs the operators of {library}, which this handler does not know")
        importlib.import_module(library)  # brings its operators; ImportError names it where it is not installed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TorchScript's announced end
        graph = torch.jit.load(str(file), map_location=device).eval()  # type: ignore[no-untyped-call]
        if told.get("fuse") is True and device.type == "cpu":
            graph = torch.jit.optimize_for_inference(graph)
    logger.info("%s: %s", file.name, {key: told[key] for key in ("method", "dtype", "fuse", "libraries") if key in told})
    return graph, told


def to_graph(arguments: tuple[Any, ...], device: torch.device, told: Mapping[str, Any]) -> tuple[Any, ...]:
    """Arguments on the device and, where the weights are halves, in their type."""
    half = HALVES.get(str(told.get("dtype")))
    return tuple(_moved(one, device, half) for one in arguments)


def from_graph(output: Any) -> Any:
    """An output whose halves are float32 again, which is what clients and golden pairs know."""
    if isinstance(output, torch.Tensor):
        return output.float() if output.dtype in HALVES.values() else output
    if isinstance(output, Mapping):
        return {key: from_graph(value) for key, value in output.items()}
    return type(output)(from_graph(one) for one in output) if type(output) in (list, tuple) else output


def _moved(value: Any, device: torch.device, half: torch.dtype | None) -> Any:
    if isinstance(value, list):
        return [_moved(one, device, half) for one in value]
    return value.to(device, half if half is not None and value.dtype == torch.float32 else value.dtype)
