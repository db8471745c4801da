"""Compares what an exported model answers with what the eager one does, output by output, by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from marline.core import ParityError

LEAST = {"float32": (0.0, 0.0), "bfloat16": (0.05, 0.05), "float16": (0.01, 0.01)}  # a few units of 2^-8 and 2^-11


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What may differ: |exported - eager| <= atol + rtol x |eager|."""

    atol: float
    rtol: float

    def at(self, dtype: str) -> "Tolerance":
        """For weights of another type, whose rounding is all that the larger tolerance allows for."""
        least = LEAST[dtype]
        return Tolerance(max(self.atol, least[0]), max(self.rtol, least[1]))


@dataclass(frozen=True, slots=True)
class Row:
    """The largest difference of one output in one case."""

    stage: str  # eager | exported | frozen | reloaded in a fresh process | C++
    case: str
    batch: int
    output: str
    dtype: str
    max_abs: float
    max_rel: float


def named(output: Any, name: str = "output") -> dict[str, torch.Tensor]:
    """The tensors of an output by name: of tuples and lists by place, of dicts and ModelOutputs by key, however deep."""
    return dict(_named(output, "" if isinstance(output, Mapping) else name))


def _named(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value.detach()
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _named(item, f"{name}[{index}]")
    elif isinstance(value, bool | int | float):
        yield name, torch.tensor(value)


def compare(expected: Any, got: Any, stage: str, case: str, batch: int, tolerance: Tolerance) -> list[Row]:
    """One row per output; ParityError naming the output that is further off than the tolerance allows."""
    left, right, where = named(expected), named(got), f"{stage}, {case}"
    if left.keys() != right.keys():
        raise ParityError(f"{where}: outputs are {_few(right)}, the eager model gives {_few(left)}")
    return [_row(value, right[name], stage, case, batch, name, tolerance) for name, value in left.items()]


def _row(value: torch.Tensor, other: torch.Tensor, stage: str, case: str, batch: int, name: str, tolerance: Tolerance) -> Row:
    where = f"{stage}, {case}, {name}"
    if value.shape != other.shape or value.dtype != other.dtype:
        raise ParityError(
            f"{where}: {_type(other)} {list(other.shape)}, the eager model gives {_type(value)} {list(value.shape)}; "
            "the export has a size or a type baked in"
        )
    if not value.numel():
        return Row(stage, case, batch, name, _type(value), 0.0, 0.0)
    if not (value.is_floating_point() or value.is_complex()):
        wrong = int((value != other).sum())
        if wrong:
            raise ParityError(f"{where}: {wrong} of {value.numel()} {_type(value)} values are others than the eager model's")
        return Row(stage, case, batch, name, _type(value), 0.0, 0.0)
    exact, theirs = (each.double() if each.is_floating_point() else each for each in (value, other))
    off = (exact - theirs).abs()
    row = Row(stage, case, batch, name, _type(value), off.max().item(), (off / exact.abs().clamp_min(1e-12)).max().item())
    close = torch.allclose(exact, theirs, atol=tolerance.atol, rtol=tolerance.rtol)
    if not torch.isfinite(exact).all() or not close:
        raise ParityError(
            f"{where}: differs from the eager model by up to {row.max_abs:.3g} absolute, {row.max_rel:.3g} relative; "
            f"allowed are atol {tolerance.atol:g}, rtol {tolerance.rtol:g}. Nothing was published"
        )
    return row


def narrowed(arguments: tuple[Any, ...], dtype: str) -> tuple[Any, ...]:
    """Arguments for weights of type `dtype`: floating-point tensors are converted, others stay."""
    return tuple(_as(one, getattr(torch, dtype)) for one in arguments)


def widened(answer: Any) -> Any:
    """An answer with its halves as float32, which is what clients get."""
    return _as(answer, torch.float32)


def _as(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(dtype) if value.dtype in {torch.float32, torch.bfloat16, torch.float16} else value
    if isinstance(value, dict):
        return {key: _as(item, dtype) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as(item, dtype) for item in value]
    return value


def worst(rows: Sequence[Row]) -> list[Row]:
    """Of each stage and case the output that is furthest off."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        kept = found.get((row.stage, row.case))
        if kept is None or row.max_abs > kept.max_abs:
            found[row.stage, row.case] = row
    return list(found.values())


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON values."""
    return [asdict(row) for row in rows]


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _few(outputs: Mapping[str, Any], most: int = 6) -> str:
    names = list(outputs)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
