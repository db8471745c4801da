"""The batches on which an export is proven: other sizes, other lengths, other values than the one it was made with."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from marline.core import ExportError
from marline.handler import Collate, Sample, collate, tensors

LENGTHS = 3  # beside the longest sample's own: sequences are cut to a quarter, a half and all but one


@dataclass(frozen=True, slots=True)
class Case:
    """One call; `demanded` is False for what the model may refuse, as then nothing is to be compared."""

    name: str
    batch: int
    arguments: tuple[Any, ...]
    demanded: bool = True
    method: str = "forward"
    keywords: Mapping[str, Any] = field(default_factory=dict)


def cases_of(samples: Sequence[Sample], batch_sizes: Sequence[int], gather: Collate = collate) -> list[Case]:
    """Every batch size, then shorter sequences, then values that are unlike the samples, [2, ...] each.

    Tensors of one dimension are sequences and may be cut. Values: nothing, the opposite, and much smaller; integers and
    truth values only backwards, as others may be outside the vocabulary.
    """
    found = [Case(f"batch {size}", size, _batch(samples, size, gather)) for size in batch_sizes]
    for length in _lengths(samples):
        cut = [_each(sample, lambda tensor, to=length: tensor[:to] if tensor.ndim == 1 else tensor) for sample in samples]
        found.append(Case(f"batch 3, length {length}", 3, _batch(cut, 3, gather), demanded=False))
    for name, change in VALUES.items():
        changed = [_each(sample, change) for sample in samples]
        found.append(Case(f"batch 2, {name}", 2, _batch(changed, 2, gather), demanded=False))
    return found


def calls_of(
    module: nn.Module, samples: Sequence[Sample], calls: Mapping[str, Sequence[Mapping[str, Any]]], gather: Collate = collate
) -> list[Case]:
    """A case for each call of another method that `export.calls` lists: for one sample, and for two equal ones.

    A method gets those of the sample's tensors whose names are among its arguments, or the one there is.
    """
    found = []
    for method, keywords in ((method, one) for method, several in calls.items() for one in several):
        if not inspect.ismethod(getattr(module, method, None)):
            raise ExportError(f"export.calls names {method}, which is no method of {type(module).__name__}")
        told = ", ".join(f"{name}={value}" for name, value in keywords.items())
        taken = inspect.signature(getattr(module, method)).parameters
        for size in (1, 2):
            sample = samples[0]
            if isinstance(sample, Mapping):
                sample = {name: tensor for name, tensor in sample.items() if name in taken}
            found.append(Case(f"{method}({told}), batch {size}", size, gather([sample] * size), True, method, keywords))
    return found


def _batch(samples: Sequence[Sample], size: int, gather: Collate) -> tuple[Any, ...]:
    return gather([samples[index % len(samples)] for index in range(size)])


def _each(sample: Sample, change: Any) -> Sample:
    if isinstance(sample, Mapping):
        return {name: change(tensor) for name, tensor in sample.items()}
    changed: torch.Tensor = change(sample)
    return changed


def _lengths(samples: Sequence[Sample]) -> list[int]:
    longest = max((tensor.shape[0] for tensor in _sequences(samples)), default=0)
    return sorted({longest // 4, longest // 2, longest - 1} - {longest, 0, -1})[:LENGTHS]


def _sequences(samples: Sequence[Sample]) -> Iterator[torch.Tensor]:
    """Tensors of one dimension that are no fixed features: of whole numbers, or of different lengths."""
    for place, tensor in enumerate(tensors(samples[0])):
        column = [tensors(sample)[place] for sample in samples]
        if tensor.ndim == 1 and (not tensor.is_floating_point() or len({one.shape for one in column}) > 1):
            yield from column


VALUES: dict[str, Any] = {
    "zeros": lambda tensor: torch.zeros_like(tensor) if tensor.is_floating_point() else tensor.flip(0),
    "the opposite": lambda tensor: -tensor if tensor.is_floating_point() else tensor.flip(0),
    "a thousandth": lambda tensor: tensor / 1000 if tensor.is_floating_point() else tensor.flip(0),
}
