"""Finds out whether a branch that a trace froze matters: by running the eager model with the choice turned round.

A choice asks whether a tensor is true, or for a number in it: then the number is made much larger and much smaller.
"""

import copy
import linecache
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from marline.core import ParityError
from marline.export._diagnosis import innermost_branch, is_torchs
from marline.export._parity import Tolerance, compare
from marline.export._torchscript import Suspect

MOST = 32  # choices that are turned round, one at a time

SILENT = {  # no word of the tracer
    torch.equal,
    torch.Tensor.equal,
    torch.allclose,
    torch.Tensor.allclose,
    torch.Tensor.is_nonzero,
    torch.is_nonzero,
}
TRUTHS = {torch.Tensor.__bool__, torch.Tensor.__contains__}
NUMBERS = {torch.Tensor.__float__, torch.Tensor.__int__, torch.Tensor.__index__, torch.Tensor.item, torch.Tensor.tolist}
SIZED = {  # how many there are depends on values
    *(torch.nonzero, torch.Tensor.nonzero, torch.argwhere, torch.Tensor.argwhere),
    *(torch.masked_select, torch.Tensor.masked_select, torch.unique, torch.Tensor.unique),
    *(torch.unique_consecutive, torch.Tensor.unique_consecutive),
}
TRIES = 4  # inputs of other values, to see which numbers they change
FAR = {float: 1e6, int: 1000}  # how far numbers are moved; loops may run as often as an int says

Place = tuple[str, int]
Seen = tuple[Place, Any]  # a truth, a number, or a list of them


class _Turned(TorchFunctionMode):
    """Notes what tensors are asked for at certain places, and turns one of the answers round."""

    def __init__(self, places: Collection[Place], *, silent: bool, turn: int | None = None, sign: int = 1) -> None:
        super().__init__()
        self.places, self.silent, self.turn, self.sign = places, silent, turn, sign
        self.seen: list[Seen] = []
        self.sized = False  # whether a tensor was made whose size depends on values

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = func(*args, **(kwargs or {}))
        self.sized = self.sized or _is_sized_by_values(func, args)
        if func in SILENT:
            place = _caller(None) if self.silent else None
        else:
            place = _caller(self.places) if func in TRUTHS | NUMBERS else None
        if place is None:
            return value
        self.seen.append((place, value))
        if len(self.seen) - 1 != self.turn:
            return value
        return _moved(value, self.sign)


def refuse_frozen_branch(
    module: nn.Module, cases: Sequence[tuple[Any, ...]], suspects: Collection[Suspect], tolerance: Tolerance, *, silent: bool
) -> None:
    """ParityError naming the first `if` that the tracer suspects and whose other branch gives another answer.

    The first of the cases is run again and again, also with values so large that a branch for rare ones shows what it does.
    One whose other branch raises only checks something; one whose other branch gives the same is harmless, and so is a number
    that no input changes. `silent` asks also where the tracer suspects nothing. A size that depends on values is a plain number
    to the eager model, which cannot be turned: a choice by one is refused, and so is what was read through NumPy.
    """
    for file, number, told in suspects:
        if told.startswith("Converting a tensor to a NumPy"):
            raise ParityError(f"the trace keeps what was read through NumPy as it was\n    {_shown((file, number))}")
    places = {
        (file, number) for file, number, told in suspects if told.startswith(("Converting a tensor to a Python", "Using len"))
    }
    turned = partial(_Turned, places, silent=silent)
    _, seen = _answer(module, cases[0], counting := turned())
    hidden = sorted(places - {place for place, _ in seen})
    if counting.sized and hidden:
        raise ParityError(
            f"the trace looked at a size that depends on values, and keeps one way through\n    {_shown(hidden[0])}"
        )
    if not seen:
        return
    numbers = any(not isinstance(value, bool) for _, value in seen)
    others = _seen_in([*cases[1:], *_others(cases[0])], module, turned) if numbers else []
    for arguments in (cases[0], tuple(_larger(one) for one in cases[0])):
        _refuse_turned(module, arguments, turned, others, tolerance)


def _refuse_turned(
    module: nn.Module,
    arguments: tuple[Any, ...],
    turned: Callable[..., _Turned],
    others: list[list[Seen]],
    tolerance: Tolerance,
) -> None:
    try:
        expected, seen = _answer(module, arguments, turned())
        compare(expected, expected, "turned", "", 0, tolerance)
    except Exception:  # such values are refused, or their answer is not finite
        return
    for turn, (place, value) in enumerate(seen[:MOST]):
        if not isinstance(value, bool) and all(other[turn : turn + 1] == [(place, value)] for other in others):
            continue
        for sign in (1,) if isinstance(value, bool) else (1, -1):
            try:
                other, _ = _answer(module, arguments, turned(turn=turn, sign=sign))
            except Exception:  # noqa: S112 - the other branch refuses the input: a check
                continue
            try:
                compare(expected, other, "turned", "", 0, tolerance)
            except ParityError:
                raise ParityError(f"the trace keeps one branch only, and the other one matters\n    {_shown(place)}") from None


def _answer(module: nn.Module, arguments: tuple[Any, ...], mode: _Turned) -> tuple[Any, list[Seen]]:
    given = copy.deepcopy(arguments)
    torch.manual_seed(0)
    with torch.inference_mode(), mode:
        return module(*given), mode.seen


def _seen_in(cases: Sequence[tuple[Any, ...]], module: nn.Module, turned: Callable[..., _Turned]) -> list[list[Seen]]:
    found = []
    for case in cases:
        try:
            found.append(_answer(module, case, turned())[1])
        except Exception:  # noqa: S112 - an input that the model refuses shows nothing
            continue
    return found


def _others(arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The same shapes with other values: samples may be too much alike to change a number."""
    generator = torch.Generator().manual_seed(0)

    def other(value: Any) -> Any:
        if isinstance(value, list):
            return [other(one) for one in value]
        shuffled = value.flatten()[torch.randperm(value.numel(), generator=generator)].view_as(value)
        noise = torch.randn(value.shape, generator=generator)
        return shuffled * noise.to(value.dtype) if value.is_floating_point() else shuffled

    return [tuple(other(one) for one in arguments) for _ in range(TRIES)]


def _is_sized_by_values(func: Any, args: tuple[Any, ...]) -> bool:
    if func is torch.where:
        return len(args) == 1
    if func is not torch.Tensor.__getitem__:
        return func in SIZED
    indices = args[1] if isinstance(args[1], tuple) else (args[1],)
    return any(isinstance(one, torch.Tensor) and one.dtype == torch.bool for one in indices)


def _larger(value: Any) -> Any:
    if isinstance(value, list):
        return [_larger(one) for one in value]
    return value * FAR[int] if value.is_floating_point() else value


def _moved(value: Any, sign: int) -> Any:
    if isinstance(value, list):
        return [_moved(one, sign) for one in value]
    return not value if isinstance(value, bool) else value + sign * FAR.get(type(value), 0)


def _caller(places: Collection[Place] | None) -> Place | None:
    """Which of the places asked; of None the nearest outside torch."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - who asked is what matters
    while frame is not None:
        place = (frame.f_code.co_filename, frame.f_lineno)
        if place in places if places is not None else not is_torchs(place[0]):
            return place
        frame = frame.f_back
    return None


def _shown(place: Place) -> str:
    found = innermost_branch(*place)
    return str(found) if found else f"{place[0].rpartition('/')[2]}:{place[1]}: {linecache.getline(*place).strip()}"
