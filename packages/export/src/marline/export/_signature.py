"""What an exported file says of itself, inside it: its inputs and outputs, and how it is to be run.

The shared handler reads it before it loads the file.
"""

from collections.abc import Sequence
from typing import Any

import torch

from marline.core import ExportConfig
from marline.export._eager import Asked
from marline.export._parity import named
from marline.export._tuning import Tuned

BATCH, ANY = "batch", "any"  # dimensions of any size


def signature(
    asked: Sequence[Asked], config: ExportConfig, method: str, chosen: Tuned, libraries: Sequence[str]
) -> dict[str, Any]:
    """The metadata of an export: JSON values only; dimensions are numbers, `batch`, or `any` where cases differ."""
    forward = [one for one in asked if one.case.method == "forward"]
    batches = [one.case.batch for one in forward]
    columns = list(zip(*(one.case.arguments for one in forward), strict=True))
    outputs = [named(one.expected) for one in forward]
    names = [name for name in outputs[0] if all(name in each for each in outputs)]
    return {
        "schema": 1,
        "torch": torch.__version__.partition("+")[0],
        "method": method,
        "methods": ["forward", *(name for name in _methods(chosen) if name != "forward")],
        "dtype": config.dtype,
        "channels_last": chosen.channels_last,
        "fuse": chosen.fuse,
        "libraries": list(libraries),
        "inputs": [_told(column, batches, config.dtype) for column in columns],
        "outputs": {name: _told([each[name] for each in outputs], batches, "float32") for name in names},
    }


def _methods(chosen: Tuned) -> list[str]:
    names = chosen.module._c._method_names()  # noqa: SLF001 - there is no public list
    return [name for name in names if not name.startswith("_")]


def _told(column: Sequence[Any], batches: Sequence[int], dtype: str) -> dict[str, Any]:
    if not isinstance(column[0], torch.Tensor):
        return {"kind": f"list of {type(column[0][0]).__name__.lower()}" if column[0] else "list"}
    kind = dtype if column[0].dtype == torch.float32 else str(column[0].dtype).removeprefix("torch.")
    if len({tensor.ndim for tensor in column}) > 1:
        return {"dtype": kind, "shape": None}
    shapes = list(zip(*(tensor.shape for tensor in column), strict=True))
    varied = [sizes[0] if len(set(sizes)) == 1 else ANY for sizes in shapes]
    if varied and list(shapes[0]) == list(batches):
        varied[0] = BATCH
    return {"dtype": kind, "shape": varied}
