"""Makes a graph of a module by one method, and proves it as it is: scripted, traced, a whole around a traced part, or given."""

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from marline.core import ExportConfig, ExportError, ParityError, import_file, located, progress
from marline.export._branches import refuse_frozen_branch
from marline.export._cases import Case
from marline.export._diagnosis import places
from marline.export._eager import Asked
from marline.export._explanation import script_refusal, trace_refusal
from marline.export._parity import Row, Tolerance, narrowed
from marline.export._proof import CaseError, prove
from marline.export._remedies import Remedy
from marline.export._torchscript import Script, Suspect, first_lines, free_devices, freeze, reopened, script, trace

METHODS = {"auto": ("script", "trace"), "script": ("script",), "trace": ("trace",), "hybrid": ("hybrid",)}

TRACED = "is_traced_part"  # marks the network inside a whole


def methods_of(module: nn.Module, config: ExportConfig) -> tuple[str, ...]:
    """The methods to try, in order."""
    if isinstance(module, torch.jit.ScriptModule) and config.whole is None:
        return ("given",)
    return METHODS[config.method]


@dataclass(frozen=True, slots=True)
class Made:
    """What one method made of a module, proven as it is, and how it can be made again of a variant."""

    module: Script
    make: Callable[[nn.Module], Script]
    rows: Sequence[Row]
    noticed: Sequence[Suspect]


def made_by(method: str, module: nn.Module, asked: Sequence[Asked], config: ExportConfig, tolerance: Tolerance) -> Made:
    example = narrowed(example_of([one.case for one in asked]).arguments, config.dtype)
    noticed: list[Suspect] = []
    make = partial(MAKERS[method], example=example, config=config, noticed=noticed)
    progress(0.3, f"making TorchScript by {method}")
    try:
        exported = make(module)
        rows = prove(exported, asked, "exported", tolerance, config.dtype)
    except CaseError as error:
        told = str(error).removesuffix(". Nothing was published")
        if method == "trace" and error.case.method == "forward":
            told = trace_refusal(module, example, narrowed(error.case.arguments, config.dtype), error)
        raise ParityError(told) from None
    if method in {"trace", "hybrid"}:
        traced = module if method == "trace" else _network_in(module, config)
        if not isinstance(traced, torch.jit.ScriptModule):
            others = [narrowed(one.case.arguments, config.dtype) for one in asked if one.case.method == "forward"]
            refuse_frozen_branch(traced, [example, *others], noticed, tolerance, silent=True)
    return Made(exported, make, rows, noticed)


def example_of(cases: Sequence[Case]) -> Case:
    """A case of two samples or more: a trace made with one may bake the batch size in."""
    return next((case for case in cases if case.batch >= 2), cases[0])


def _scripted(module: nn.Module, *, example: tuple[Any, ...], config: ExportConfig, noticed: list[Suspect]) -> Script:
    del example, config, noticed
    try:
        return script(module)
    except Exception as error:  # the compiler raises many kinds, from OSError to its own
        raise ExportError(script_refusal(module, error)) from error


def _traced(module: nn.Module, *, example: tuple[Any, ...], config: ExportConfig, noticed: list[Suspect]) -> Script:
    del config
    try:
        traced, found = trace(module, example)
    except Exception as error:  # anyone's code runs
        raise ExportError(f"tracing fails: {first_lines(error)}") from error
    noticed += found
    return traced


def _hybrid(module: nn.Module, *, example: tuple[Any, ...], config: ExportConfig, noticed: list[Suspect]) -> Script:
    """The whole that the user wrote, scripted around the traced module."""
    inner = _network_in(module, config)
    if not isinstance(inner, torch.jit.ScriptModule):
        inner = freeze(_traced(inner, example=example, config=config, noticed=noticed), [])
        free_devices(inner)
        inner = reopened(inner)
    return _scripted(_around(inner, config), example=example, config=config, noticed=noticed)


def _network_in(whole: nn.Module, config: ExportConfig) -> nn.Module:
    inner = next((part for part in whole.modules() if hasattr(part, TRACED)), None)
    if inner is None:
        raise ExportError(
            f"export.whole={config.whole} does not keep the network it is given; write self.model = trained_model"
        )
    return inner


def _given(module: nn.Module, *, example: tuple[Any, ...], config: ExportConfig, noticed: list[Suspect]) -> Any:
    del example, config, noticed
    return module


MAKERS: dict[str, Callable[..., Script]] = {"script": _scripted, "trace": _traced, "hybrid": _hybrid, "given": _given}


def wholly(module: nn.Module, config: ExportConfig) -> nn.Module:
    """The eager model that is exported: the module itself, or what `export.whole` makes of it."""
    if config.whole is None:
        return module
    setattr(module, TRACED, True)
    return _around(module, config)


def _around(network: nn.Module, config: ExportConfig) -> nn.Module:
    make = whole_of(config)
    try:
        return make(network).eval()
    except Exception as error:  # the user's code
        told = f"{type(error).__name__}: {error}"
        raise ExportError(f"export.whole={config.whole} cannot be made around the network: {told}") from error


def whole_of(config: ExportConfig) -> Callable[[nn.Module], nn.Module]:
    """The class that `export.whole` names; it is called with the traced network."""
    assert config.whole is not None  # the configuration was checked
    name, _, attribute = config.whole.rpartition(":")
    file = located(name)
    try:
        found: Callable[[nn.Module], nn.Module] = getattr(import_file(file, f"whole_{file.stem}"), attribute)
    except Exception as error:
        raise ExportError(f"export.whole={config.whole} cannot be imported: {type(error).__name__}: {error}") from error
    return found


def refuse_fixed_device(module: nn.Module, example: tuple[Any, ...]) -> None:
    """ExportError where the model's own code names a device: it would fail wherever it is served on another.

    Asked on torch's meta device, which every machine has and which computes nothing.
    """
    named = places(module, Remedy.DEVICE)
    if not named:
        return
    elsewhere = tuple([each.to("meta") for each in one] if isinstance(one, list) else one.to("meta") for one in example)
    try:
        with torch.inference_mode():
            copy.deepcopy(module).to("meta")(*elsewhere)
    except Exception as error:  # nothing is computed there, so code that looks at values fails
        if re.search("same device|expected device|two devices", str(error)):
            raise ExportError(f"the model works on one device only\n    {named[0]}") from None
