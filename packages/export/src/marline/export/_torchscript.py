"""Makes TorchScript. Nothing else in this project calls torch.jit, but for the handler, which loads what is made here.

Knows no repository, no archive, no server. Deprecated upstream and our mission: docs/decisions/0001.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from marline.core import ExportError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exported:
    """A frozen TorchScript module and how it came about."""

    module: torch.jit.ScriptModule
    method: str  # script | trace | given
    reason: str


def to_torchscript(module: nn.Module, example: tuple[torch.Tensor, ...], method: str) -> Exported:
    """Script, else trace, then freeze; `method` script or trace allows only that one. TorchScript is passed on.

    `example` is a batch, [B, ...] with B >= 2: a trace made with one sample may bake the batch size in.
    Raises ExportError with what the compiler said where nothing works.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return Exported(module, "given", "the source is TorchScript")
    with _announced_end():
        if method != "trace":
            try:
                return Exported(torch.jit.freeze(torch.jit.script(module)), "script", "scripting kept all control flow")
            except Exception as error:  # the compiler raises many kinds, from OSError to its own
                logger.info("scripting failed", exc_info=True)
                refusal = f"{type(error).__name__}: {_first_lines(error)}"
            if method == "script":
                raise ExportError(
                    f"export.method=script, and scripting failed: {refusal}; export.method=auto would trace instead"
                )
        else:
            refusal = "export.method=trace"
        try:
            traced = torch.jit.trace(module, example, strict=False)  # type: ignore[no-untyped-call]
        except Exception as error:  # as above
            raise ExportError(f"neither script nor trace works. Script: {refusal}. Trace: {_first_lines(error)}") from None
        return Exported(torch.jit.freeze(traced), "trace", f"scripting failed, {refusal}")


def save(module: torch.jit.ScriptModule, file: Path) -> None:
    """Write a TorchScript file; whole or not at all."""
    partial = file.with_suffix(".partial")
    with _announced_end():
        torch.jit.save(module, str(partial))
    partial.replace(file)


def load(file: Path) -> nn.Module:
    """Read a TorchScript file, on the CPU, in eval mode; ExportError where it is none."""
    with _announced_end():
        loaded: nn.Module = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]
    return loaded


@contextmanager
def _announced_end() -> Iterator[None]:
    """Torch announces TorchScript's end on every call, and looking through a model touches what its library announces.

    A contract test per torch version says that it still works. What the tracer suspects, parity proves or refutes.
    """
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning, torch.jit.TracerWarning):  # type: ignore[attr-defined]
            warnings.simplefilter("ignore", category)
        yield


def _first_lines(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) or type(error).__name__
