"""Holds an exported module against the eager answers, case by case."""

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch

from marline.core import ParityError, progress
from marline.export._cases import Case
from marline.export._eager import Asked
from marline.export._parity import Row, Tolerance, compare, narrowed, widened


class CaseError(ParityError):
    """A difference, and the case that showed it."""

    def __init__(self, message: str, case: Case) -> None:
        super().__init__(message)
        self.case = case


def prove(module: Any, asked: Sequence[Asked], stage: str, tolerance: Tolerance, dtype: str) -> list[Row]:
    """Ask `module` every case; CaseError at the first that is answered otherwise, or not at all."""
    rows = []
    for number, one in enumerate(asked):
        progress(0.3 + 0.3 * number / len(asked), f"comparing {stage}, {one.case.name}")
        rows += _held_against(one, lambda case=one: _called(module, case, dtype), stage, tolerance)  # type: ignore[misc]
    return rows


def prove_answers(answers: Sequence[Any], asked: Sequence[Asked], stage: str, tolerance: Tolerance) -> list[Row]:
    """The same for answers that another process gave, in the order of the cases."""
    rows = []
    for one, answer in zip(asked, answers, strict=True):
        rows += _held_against(one, lambda given=answer: widened(given), stage, tolerance)  # type: ignore[misc]
    return rows


def _held_against(one: Asked, answer: Callable[[], Any], stage: str, tolerance: Tolerance) -> list[Row]:
    case = one.case
    try:
        return compare(one.expected, answer(), stage, case.name, case.batch, tolerance)
    except ParityError as error:
        raise CaseError(str(error), case) from None
    except (RuntimeError, torch.jit.Error) as error:
        last = str(error).strip().splitlines()[-1].removeprefix("RuntimeError: ")
        raise CaseError(f"{stage}, {case.name}: fails where the eager model answers: {last}", case) from None


def _called(module: Any, one: Asked, dtype: str) -> Any:
    torch.manual_seed(0)
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the model's library may have something to say, each time
        method = getattr(module, one.case.method, None)
        if method is None:
            raise ParityError(f"{one.case.method} of export.calls is no method of the graph; mark it with @torch.jit.export")
        answer = method(*narrowed(copy.deepcopy(one.case.arguments), dtype), **one.case.keywords)
    return widened(answer)
