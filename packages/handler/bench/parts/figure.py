"""Rows of the benchmark's table, and what pairs of measurements say."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Rates = Mapping[str, Sequence[float]]


def figure(
    name: str, value: float | None, unit: str, bar: float | None, holds: bool | None, samples: int, note: str
) -> dict[str, Any]:
    """One row; `holds` is None where there is no bar."""
    rounded = None if value is None else round(value, 2)
    return {"name": name, "value": rounded, "unit": unit, "bar": bar, "holds": holds, "samples": samples, "note": note}


def failed(name: str, bar: float | None, why: str) -> dict[str, Any]:
    """The row of something that could not be measured: it does not hold."""
    return figure(name, None, "", bar, False, 0, why)


def turns(names: Sequence[str], passes: int) -> list[str]:
    """Who is measured when: all in order, then all in reverse order, and so on, so that drift favours nobody (ABBA)."""
    return [name for turn in range(passes) for name in (names if turn % 2 == 0 else reversed(names))]


def ratios(rates: Rates, first: str, second: str) -> list[float]:
    """First over second, pass by pass."""
    return [one / other for one, other in zip(rates[first], rates[second], strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The smallest and the largest."""
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def ratio(name: str, rates: Rates, first: str, second: str, bar: float, note: str) -> dict[str, Any]:
    """The median of the paired ratios against the least it should be."""
    found = ratios(rates, first, second)
    seen = f"{median(rates[first]):.1f} against {median(rates[second]):.1f}/s; ratios of pairs {spread(found)}"
    return figure(name, median(found), "x", bar, median(found) >= bar, len(found), f"{seen}{note and '; ' + note}")
