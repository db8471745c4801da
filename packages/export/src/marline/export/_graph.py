"""From a module and samples to a TorchScript file that is proven: the way of every module, whoever made it."""

import copy
import importlib.util
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from marline.core import ExportConfig, ExportError, ParityError, located, progress
from marline.export._branches import refuse_frozen_branch
from marline.export._cases import Case, calls_of, cases_of
from marline.export._diagnosis import places
from marline.export._eager import Asked, ask
from marline.export._elsewhere import cpp_program, in_cpp, in_python
from marline.export._explanation import script_refusal, suspects, trace_refusal
from marline.export._parity import Row, Tolerance, narrowed
from marline.export._proof import CaseError, prove, prove_answers
from marline.export._remedies import Remedy
from marline.export._signature import signature
from marline.export._torchscript import (
    Script,
    Suspect,
    first_lines,
    free_devices,
    freeze,
    libraries,
    reopened,
    save,
    script,
    trace,
)
from marline.export._tuning import Tuned, tuned
from marline.handler import Collate, Sample, collate

METHODS = {"auto": ("script", "trace"), "script": ("script",), "trace": ("trace",), "hybrid": ("hybrid",)}

TRACED = "is_traced_part"  # marks the network inside a whole

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Proven:
    """A file that was proven, and everything that is known of it."""

    file: Path
    method: str  # script | trace | hybrid | given
    reason: str
    rows: Sequence[Row]
    skipped: Sequence[str]  # proofs that could not be made here, and why
    suspects: Sequence[str]  # where the model's code looked at values while it was traced; proven harmless for every case
    signature: dict[str, Any]
    tuned: Tuned


def prove_graph(
    module: nn.Module, samples: Sequence[Sample], config: ExportConfig, file: Path, gather: Collate = collate
) -> Proven:
    """Write `file`, the TorchScript of `module` that answers every case of the samples like the eager module.

    ExportError where no method works, or the eager model cannot be compared with; ParityError where what came out differs.
    """
    asked, tolerance = _asked(module, samples, config, gather)
    exact, typed = tolerance.at(config.dtype), module.to(getattr(torch, config.dtype))
    refusals: list[str] = []
    kinds: list[type[ExportError | ParityError]] = []
    for method in _methods(module, config):
        try:
            made = _made_by(method, typed, asked, config, exact)
            chosen = tuned(typed, made.module, made.make, asked, config, exact)
            return _published(chosen, made, method, "; ".join(refusals), asked, config, exact, file)
        except (ExportError, ParityError) as error:
            logger.info("%s failed", method, exc_info=True)
            refusals.append(f"{method}: {error}")
            kinds.append(ParityError if isinstance(error, ParityError) else ExportError)
    raise kinds[-1]("\n".join(refusals) + "\nNothing was published")


def prove_in_process(
    module: nn.Module, samples: Sequence[Sample], method: str, config: ExportConfig, gather: Collate = collate
) -> Script:
    """The graph that one method makes, proven as it is, or what `prove_graph` would raise; no freezing, files and processes."""
    asked, tolerance = _asked(module, samples, config, gather)
    return _made_by(method, module.to(getattr(torch, config.dtype)), asked, config, tolerance.at(config.dtype)).module


def _asked(
    module: nn.Module, samples: Sequence[Sample], config: ExportConfig, gather: Collate
) -> tuple[list[Asked], Tolerance]:
    """What the eager model answers to every case, and what may differ."""
    tolerance = Tolerance(config.atol, config.rtol)
    cases = [*cases_of(samples, config.batch_sizes, gather), *calls_of(module, samples, config.calls, gather)]
    asked = ask(module, cases, tolerance, random=config.random)
    _refuse_fixed_device(module, _example(cases).arguments)
    return asked, tolerance


def _methods(module: nn.Module, config: ExportConfig) -> tuple[str, ...]:
    if isinstance(module, torch.jit.ScriptModule) and config.whole is None:
        return ("given",)
    return METHODS[config.method]


@dataclass(frozen=True, slots=True)
class _Made:
    """What one method made of a module, proven as it is, and how it can be made again of a variant."""

    module: Script
    make: Callable[[nn.Module], Script]
    rows: Sequence[Row]
    noticed: Sequence[Suspect]


def _made_by(method: str, module: nn.Module, asked: Sequence[Asked], config: ExportConfig, tolerance: Tolerance) -> _Made:
    example = narrowed(_example([one.case for one in asked]).arguments, config.dtype)
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
        others = [narrowed(one.case.arguments, config.dtype) for one in asked if one.case.method == "forward"]
        refuse_frozen_branch(module, [example, *others], noticed, tolerance, silent=method == "trace")
    return _Made(exported, make, rows, noticed)


def _example(cases: Sequence[Case]) -> Case:
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
    inner = next(part for part in module.modules() if hasattr(part, TRACED))
    if not isinstance(inner, torch.jit.ScriptModule):
        inner = freeze(_traced(inner, example=example, config=config, noticed=noticed), [])
        free_devices(inner)
        inner = reopened(inner)
    return _scripted(_around(inner, config), example=example, config=config, noticed=noticed)


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
    spec = importlib.util.spec_from_file_location(f"whole_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found: Callable[[nn.Module], nn.Module] = getattr(module, attribute)
    except Exception as error:
        raise ExportError(f"export.whole={config.whole} cannot be imported: {type(error).__name__}: {error}") from error
    return found


def _refuse_fixed_device(module: nn.Module, example: tuple[Any, ...]) -> None:
    """ExportError where the model's own code names a device: it would fail wherever it is served on another.

    Asked on torch's meta device, which every machine has and which computes nothing.
    """
    named = places(module, Remedy.DEVICE)
    if not named:
        return
    elsewhere = tuple(one.to("meta") if isinstance(one, torch.Tensor) else one for one in example)
    try:
        with torch.inference_mode():
            copy.deepcopy(module).to("meta")(*elsewhere)
    except (RuntimeError, NotImplementedError) as error:
        if "device" in str(error):
            raise ExportError(f"the model works on one device only\n    {named[0]}") from None


def _published(
    chosen: Tuned,
    made: _Made,
    method: str,
    refused: str,
    asked: Sequence[Asked],
    config: ExportConfig,
    tolerance: Tolerance,
    file: Path,
) -> Proven:
    """Save the graph and prove the file where nothing of ours is."""
    needed, skipped = libraries(chosen.module), []
    told = signature(asked, config, method, chosen, needed)
    calls = [(one.case.method, narrowed(one.case.arguments, config.dtype), dict(one.case.keywords)) for one in asked]
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".proof-") as work:
        folder = Path(work)
        save(chosen.module, staged := folder / file.name, told)
        progress(0.8, "loading it in a fresh process")
        rows = [
            *made.rows,
            *chosen.rows,
            *prove_answers(in_python(staged, calls, needed, folder), asked, "reloaded", tolerance),
        ]
        program = (
            cpp_program() if not needed else f"its graph needs operators of {', '.join(needed)}, which a C++ program must link"
        )
        if isinstance(program, Path):
            progress(0.9, "loading it in C++")
            rows += prove_answers(in_cpp(program, staged, calls, folder), asked, "C++", tolerance)
        else:
            skipped.append(f"C++: {program}")
        staged.replace(file)
    return Proven(file, method, _reason(method, refused), rows, skipped, suspects(made.noticed), told, chosen)


def _reason(method: str, refused: str) -> str:
    told = {
        "script": "scripting kept all control flow",
        "trace": "asked for",
        "hybrid": "asked for",
        "given": "the source is TorchScript",
    }
    return refused or told[method]
