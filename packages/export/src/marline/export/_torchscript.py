"""Makes, freezes, writes and reads TorchScript: the one place that calls torch.jit, but for the handler, which loads it.

The rest of this package asks for `make`, `freeze`, `fuse`, `save` and `load` alone, so that another way to capture a graph
(torch.export) can stand here later. Deprecated upstream and our mission: docs/decisions/0001.
"""

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from marline.core import ExportError

Script = torch.jit.ScriptModule
MOST_LETTERS = 500  # of a message: the tracer shows whole tensors
METADATA = "marline.json"  # beside the code, in the file
OWN_OPERATORS = {"aten", "prim", "prims", "quantized", "mkldnn", "mkldnn_prepacked", "prepacked", "profiler", "static"}
Suspect = tuple[str, int, str]  # file, line, what the tracer says

logger = logging.getLogger(__name__)


def script(module: nn.Module) -> Script:
    """Compile a module with all its control flow; whatever the compiler raises is passed on."""
    with _announced_end():
        scripted: Script = torch.jit.script(module)
    return scripted


def trace(module: nn.Module, example: tuple[Any, ...]) -> tuple[Script, list[Suspect]]:
    """Record what a module does to an example, and the places where its code looked at values.

    `example` is a batch, [B, ...] with B >= 2: a trace made with one sample may bake the batch size in.
    """
    with _announced_end(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        traced: Script = torch.jit.trace(module, example, strict=False, check_trace=False)  # type: ignore[no-untyped-call]
    tracer = [one for one in told if issubclass(one.category, torch.jit.TracerWarning)]  # type: ignore[attr-defined]
    return traced, [(one.filename, one.lineno, str(one.message).partition("!")[0].partition(". ")[0]) for one in tracer]


def freeze(module: Script, preserve: Sequence[str], *, exact: bool = False) -> Script:
    """Weights as constants, what is the same always computed now; `preserve` names methods and attributes that stay.

    Unless `exact`, batch norms are folded into convolutions, which rounds differently.
    """
    absent = [name for name in preserve if not hasattr(module, name)]
    if absent:
        raise ExportError(f"export.preserve names {', '.join(absent)}, which the exported module does not have")
    with _announced_end():
        frozen: Script = torch.jit.freeze(module, preserved_attrs=list(preserve), optimize_numerics=not exact)
    return frozen


def fuse(module: Script) -> Script:
    """A copy with operators fused and weights in the layout of this machine's kernels.

    It cannot be saved, so it is made after loading.
    """
    with _announced_end():
        fused: Script = torch.jit.optimize_for_inference(reopened(module))
    return fused


def reopened(module: Script) -> Script:
    """A copy as a file would give it: a frozen module can be a part of another one only so."""
    kept = io.BytesIO()
    with _announced_end():
        torch.jit.save(module, kept)
        kept.seek(0)
        copied: Script = torch.jit.load(kept)  # type: ignore[no-untyped-call]
    return copied


def save(module: Script, file: Path, metadata: Mapping[str, Any]) -> None:
    """Write a TorchScript file with `metadata` inside; whole or not at all."""
    partial = file.with_suffix(".partial")
    with _announced_end():
        torch.jit.save(module, str(partial), _extra_files={METADATA: json.dumps(metadata)})
    partial.replace(file)


def load(file: Path) -> nn.Module:
    """Read a TorchScript file, on the CPU, in eval mode; ExportError where it is none."""
    with _announced_end():
        try:
            loaded: nn.Module = torch.jit.load(str(file), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise ExportError(f"{file.name} is no TorchScript that can be loaded: {first_lines(error)}") from None
    return loaded


def libraries(module: Script) -> list[str]:
    """Whose operators the graph uses beside torch's: they must be imported before the file can be loaded."""
    spaces = {node.kind().partition("::")[0] for node in _nodes(module.inlined_graph)}
    return sorted(spaces - OWN_OPERATORS)


def free_devices(module: Script) -> int:
    """Make the devices that tracing wrote down those of the first input; returns how many there were.

    A tracer notes the device of every tensor that is made on the way, also where the code says `device=x.device`.
    """
    graph = module.graph
    inputs = [value for value in list(graph.inputs())[1:] if str(value.type()) == "Tensor"]
    fixed = [node for node in _nodes(graph) if node.kind() == "prim::Constant" and str(node.output().type()) == "Device"]
    if not (inputs and fixed):
        return 0
    device = graph.create("prim::device", [inputs[0]], 1)
    device.output().setType(fixed[0].output().type())
    graph.prependNode(device)
    for node in fixed:
        node.output().replaceAllUsesWith(device.output())
        node.destroy()
    return len(fixed)


def operations(module: Script) -> list[tuple[str, str]]:
    """What a graph does, in order, and where: (operator with its constants, source of the model's own code)."""
    return [(_told(node), node.sourceRange()) for node in _nodes(module.inlined_graph)]


def first_lines(error: BaseException | str, count: int = 3) -> str:
    """The beginning of a message of many lines, as one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:count])[:MOST_LETTERS] or type(error).__name__


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _told(node: Any) -> str:
    if node.kind() != "prim::Constant":
        return str(node.kind())
    value = node.output().toIValue()
    return f"{value!r}" if isinstance(value, bool | int | float | str | torch.device) else f"{node.output().type()}"


@contextmanager
def _announced_end() -> Iterator[None]:
    """Torch announces TorchScript's end on every call, and looking through a model touches what its library announces.

    A contract test per torch version says that it still works. What the tracer suspects, parity proves or refutes.
    """
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, torch.jit.TracerWarning):  # type: ignore[attr-defined]
            warnings.simplefilter("ignore", category)
        warnings.filterwarnings("ignore", category=UserWarning, module=r"torch\.jit\.")  # advice to the library's authors
        yield
