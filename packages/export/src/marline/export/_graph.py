"""From a module and samples to a TorchScript file that is proven: the way of every module, whoever made it."""

import copy
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from marline.core import ExportConfig, ExportError, ParityError, progress
from marline.export._cases import calls_of, cases_of
from marline.export._eager import Asked, ask
from marline.export._elsewhere import cpp_program, in_cpp, in_python
from marline.export._explanation import suspects
from marline.export._making import Made, example_of, made_by, methods_of, refuse_fixed_device
from marline.export._parity import Row, Tolerance, named, narrowed
from marline.export._proof import prove_answers
from marline.export._signature import signature
from marline.export._torchscript import Script, libraries, save
from marline.export._tuning import Tuned, tuned
from marline.handler import Collate, Sample, collate

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
    module: nn.Module,
    samples: Sequence[Sample],
    config: ExportConfig,
    file: Path,
    gather: Collate = collate,
    example: Mapping[str, str] | None = None,
) -> Proven:
    """Write `file`, the TorchScript of `module` that answers every case of the samples like the eager module.

    `example` is a request that the file carries beside its signature: `name` with an ending, `body` in base64.
    ExportError where no method works, or the eager model cannot be compared with; ParityError where what came out differs.
    """
    asked, tolerance = _asked(module, samples, config, gather)
    exact, typed = tolerance.at(config.dtype), _typed(module, config.dtype)
    refusals: list[str] = []
    kinds: list[type[ExportError | ParityError]] = []
    for method in methods_of(module, config):
        try:
            made = made_by(method, typed, asked, config, exact)
            chosen = tuned(typed, made.module, made.make, asked, config, exact)
            told = signature(asked, config, method, chosen, libraries(chosen.module)) | (
                {"example": example} if example else {}
            )
            return _published(chosen, made, told, "; ".join(refusals), asked, exact, file)
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
    return made_by(method, _typed(module, config.dtype), asked, config, tolerance.at(config.dtype)).module


def _typed(module: nn.Module, dtype: str) -> nn.Module:
    """A copy whose float32 weights are halves; the module itself for float32: other types in it are meant so."""
    if dtype == "float32":
        return module
    half: torch.dtype = getattr(torch, dtype)
    typed = copy.deepcopy(module)
    typed._apply(lambda one: one.to(half) if one.dtype == torch.float32 else one)  # type: ignore[no-untyped-call]  # noqa: SLF001 - as .to() does
    return typed


def _asked(
    module: nn.Module, samples: Sequence[Sample], config: ExportConfig, gather: Collate
) -> tuple[list[Asked], Tolerance]:
    """What the eager model answers to every case, and what may differ."""
    tolerance = Tolerance(config.atol, config.rtol)
    cases = [*cases_of(samples, config.batch_sizes, gather), *calls_of(module, samples, config.calls, gather)]
    asked = ask(module, cases, tolerance, random=config.random)
    refuse_fixed_device(module, example_of(cases).arguments)
    return asked, tolerance


def _published(
    chosen: Tuned,
    made: Made,
    told: dict[str, Any],
    refused: str,
    asked: Sequence[Asked],
    tolerance: Tolerance,
    file: Path,
) -> Proven:
    """Save the graph and prove the file where nothing of ours is."""
    method, needed, skipped = told["method"], told["libraries"], _unproven(asked, tolerance)
    calls = [(one.case.method, narrowed(one.case.arguments, told["dtype"]), dict(one.case.keywords)) for one in asked]
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
            cpp_program(folder)
            if not needed
            else f"its graph needs operators of {', '.join(needed)}, which a C++ program must link"
        )
        if isinstance(program, Path):
            progress(0.9, "loading it in C++")
            rows += prove_answers(in_cpp(program, staged, calls, folder), asked, "C++", tolerance)
        else:
            skipped.append(f"C++: {program}")
        staged.replace(file)
    return Proven(file, method, _reason(method, refused), rows, skipped, suspects(made.noticed), told, chosen)


def _unproven(asked: Sequence[Asked], tolerance: Tolerance) -> list[str]:
    """Outputs of which the comparison says nothing: there was nothing in them, or less than may differ."""
    found = []
    outputs = [named(one.expected) for one in asked if one.case.method == "forward"]
    for name in outputs[0]:
        values = [each[name] for each in outputs if name in each]
        if not any(value.numel() for value in values):
            found.append(f"{name}: it was empty in every case")
        elif values[0].is_floating_point() and (most := max(_largest(value) for value in values)) <= tolerance.atol:
            found.append(
                f"{name}: it was never above {most:.1g}, which is below export.atol={tolerance.atol:g}; give a smaller one"
            )
    return found


def _largest(value: torch.Tensor) -> float:
    return float(value.abs().max()) if value.numel() else 0.0


def _reason(method: str, refused: str) -> str:
    told = {
        "script": "scripting kept all control flow",
        "trace": "asked for",
        "hybrid": "asked for",
        "given": "the source is TorchScript",
    }
    return refused or told[method]
