"""Asks the eager model what its export will be compared with, and refuses a model whose answers cannot be compared."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from marline.core import ExportError, ParityError, progress
from marline.export._cases import Case
from marline.export._diagnosis import places
from marline.export._parity import Tolerance, compare, named, widened
from marline.export._remedies import Remedy

TWICE = 3  # samples in a batch; a larger one would show nothing new of chance and state, and takes long


@dataclass(frozen=True, slots=True)
class Asked:
    """A case and what the eager model answers, in float32."""

    case: Case
    expected: Any


def ask(module: nn.Module, cases: Sequence[Case], tolerance: Tolerance, *, random: bool) -> list[Asked]:
    """The eager answers to every case that the model takes, the small ones asked twice.

    ExportError where the model stays in training mode, changes its input or its own state, answers otherwise the second
    time (unless `random` says that it draws numbers: then both times from one seed), or answers what is not finite.
    """
    training = [name or type(part).__name__ for name, part in module.eval().named_modules() if part.training]
    if training:
        raise ExportError(f"still in training mode after eval(): {', '.join(training[:3])}; dropout and batch norm would be on")
    before = _state(module)
    found = []
    for number, case in enumerate(cases):
        progress(0.1 + 0.2 * number / len(cases), f"asking the eager model, {case.name}")
        expected = _expected(module, case)
        if expected is None:
            continue
        if case.batch <= TWICE:
            _same_again(module, case, expected, tolerance, random=random or case.method != "forward")
        found.append(Asked(case, expected))
    changed = [name for name, value in _state(module).items() if name not in before or not torch.equal(value, before[name])]
    if changed:
        norm = _at(module, Remedy.TRAINING)
        why = (
            f"; batch norm with training=True does that, pass training=self.training{norm}"
            if norm
            else _at(module, Remedy.STATE)
        )
        raise ExportError(
            f"a call changes the module's own {', '.join(changed[:3])}, so answers may depend on the calls before; a graph "
            f"needs what it keeps to be made in __init__{why}"
        )
    return found


def _expected(module: nn.Module, case: Case) -> Any:
    """The eager answer; None where the model refuses a case that it need not take."""
    try:
        expected = _answer(module, case)
    except ExportError:
        raise
    except Exception as error:
        if case.demanded:
            raise ExportError(f"the eager model fails on {case.name}: {type(error).__name__}: {error}") from error
        return None
    if not named(expected):
        raise ExportError(f"the model answers {case.name} with no tensor: {type(expected).__name__}; return tensors")
    if all(bool(torch.isfinite(value).all()) for value in named(expected).values()):
        return expected
    if case.demanded:
        raise ExportError(_not_finite(case, expected))
    return None


def _answer(module: nn.Module, case: Case, seed: int = 0) -> Any:
    given = copy.deepcopy(case.arguments)
    torch.manual_seed(seed)
    with torch.inference_mode():
        answer = widened(getattr(module, case.method)(*given, **case.keywords))
    for place, (left, right) in enumerate(zip(given, case.arguments, strict=True)):
        if any(not torch.equal(one, other) for one, other in zip(_tensors(left), _tensors(right), strict=True)):
            raise ExportError(
                f"the model changes its input in place (argument {place}, {case.name}); whoever shares that tensor gets "
                f"something else. Work on a copy: x = x.clone(){_at(module, Remedy.IN_PLACE)}"
            )
    return _kept(answer)


def _tensors(argument: Any) -> list[torch.Tensor]:
    return list(named(argument).values())


def _kept(answer: Any) -> Any:
    """The answer's own copy: a later call may write into the same memory."""
    if isinstance(answer, torch.Tensor):
        return answer.clone()
    if isinstance(answer, Mapping):
        return {key: _kept(value) for key, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [_kept(value) for value in answer]
    return answer


def _same_again(module: nn.Module, case: Case, expected: Any, tolerance: Tolerance, *, random: bool) -> None:
    told = _difference(module, case, expected, tolerance, seed=0 if random else 1)
    if told is None:
        return
    if _difference(module, case, expected, tolerance, seed=0) is not None:
        raise ExportError(
            f"two equal calls answer differently: {told}. The model keeps something between calls; a graph keeps nothing"
            f"{_at(module, Remedy.STATE)}"
        )
    raise ExportError(
        f"the answer depends on random numbers: {told}. Dropout that is left on does that (training=self.training turns it "
        f"off); a model that means to sample says so with export.random=true, and is compared under one seed"
        f"{_at(module, Remedy.RANDOM)}"
    )


def _difference(module: nn.Module, case: Case, expected: Any, tolerance: Tolerance, *, seed: int) -> str | None:
    try:
        compare(expected, _answer(module, case, seed), "eager", case.name, case.batch, tolerance)
    except ParityError as error:
        return str(error).removesuffix(". Nothing was published")
    return None


def _not_finite(case: Case, expected: Any) -> str:
    broken = [name for name, value in named(expected).items() if not torch.isfinite(value).all()]
    return f"the eager model itself answers NaN or infinity: {case.name}, {', '.join(broken[:3])}; no export can be compared"


def _state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.named_buffers()}


def _at(module: nn.Module, remedy: Remedy) -> str:
    """Where in the model's own source that is likely done, if it can be seen."""
    found = places(module, remedy)
    return f". See {found[0].where}: {found[0].line}" if found else ""
