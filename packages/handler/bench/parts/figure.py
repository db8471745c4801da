"""Rows of the benchmark's table, and what pairs of measurements say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

UNSTABLE = 1.5  # where a contender's own passes differ by more, something else had the machine: nothing is shown by them


@dataclass(frozen=True, slots=True)
class Compared:
    """What each contender reached in each pass, and why others have none."""

    rates: dict[str, list[float]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def middle(self, name: str) -> float:
        """The median of a contender's passes; NaN where it has none."""
        return median(self.rates[name]) if name in self.rates else float("nan")


def figure(
    name: str, value: float | None, unit: str, bar: float | None, holds: bool | None, samples: int, note: str
) -> dict[str, Any]:
    """One row; `holds` is None where there is no bar. A value that is not finite is none."""
    rounded = None if value is None or not math.isfinite(value) else round(value, 2)
    return {"name": name, "value": rounded, "unit": unit, "bar": bar, "holds": holds, "samples": samples, "note": note}


def failed(name: str, bar: float | None, why: str) -> dict[str, Any]:
    """The row of something that could not be measured: it does not hold."""
    return figure(name, None, "", bar, False, 0, why)


def turns(names: Sequence[str], passes: int) -> list[str]:
    """Who is measured when: all in order, then all in reverse order, and so on, so that drift favours nobody (ABBA)."""
    return [name for turn in range(passes) for name in (names if turn % 2 == 0 else reversed(names))]


def ratios(rates: Mapping[str, Sequence[float]], first: str, second: str) -> list[float]:
    """First over second, pass by pass."""
    return [one / other for one, other in zip(rates[first], rates[second], strict=True)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The smallest and the largest."""
    return f"{min(values):.{digits}f} to {max(values):.{digits}f}"


def ratio(name: str, compared: Compared, first: str, second: str, bar: float | None, note: str) -> dict[str, Any]:
    """The median of the paired ratios against the least it should be, if anything is asked of it."""
    said = [f"{one}: {compared.problems[one]}" for one in (first, second) if one in compared.problems]
    if said:
        return failed(name, bar, "; ".join(said))
    found = ratios(compared.rates, first, second)
    seen = f"{compared.middle(first):.1f} against {compared.middle(second):.1f}/s; ratios of pairs {spread(found)}"
    wild = [one for one in (first, second) if max(compared.rates[one]) > UNSTABLE * min(compared.rates[one])]
    notes = [seen, *[f"UNSTABLE: passes of {one} reached {spread(compared.rates[one], 1)}/s" for one in wild], note]
    holds = None if bar is None else not wild and median(found) >= bar
    return figure(name, median(found), "x", bar, holds, len(found), "; ".join(one for one in notes if one))
