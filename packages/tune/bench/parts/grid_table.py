"""What a brute-force grid shows of the tuner: figures, and a page of docs/grid for each curve."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from marline.core import machine
from packages.handler.bench.parts.figure import figure
from packages.tune.bench.parts.cells import DELAYS_MS, SIZES, Cell, limits
from packages.tune.bench.parts.equal_price import SEARCHES, Place, searched

DEFAULT = (1, 100)
REACHED, SHARE, TESTS = 0.97, 0.10, 6
DRAWS, SURE = 2000, 0.95
HEAD = (
    "Written by `python -m packages.tune.bench.tune against_grid`; `cells.py` and `against_grid.py` of `bench/parts` say how",
    "each figure is made. A cell is the highest rate in requests per second that TorchServe held within the objective, found",
    "by trials on both sides of it that are at most 8 % apart. The best cells and those that a tuning run chose were then",
    "measured again with longer trials: the final. EMULATED: the forward pass sleeps along published curves.",
)

Found = Mapping[Place, Cell]


@dataclass(frozen=True, slots=True)
class Compared:
    """One curve: what all cells carry, what those of the final carry, and what each tuning run chose."""

    key: str
    scale: int
    slo_ms: int
    cells: Found
    finals: Found
    runs: Sequence[Mapping[str, Any]]

    def best(self) -> Place:
        """The cell with the highest rate of the final."""
        return max(self.finals, key=lambda place: self.finals[place].rps)

    def reached(self, run: Mapping[str, Any]) -> float:
        """The rate of what a tuning run chose over that of the best cell."""
        return self.finals[chosen(run)].rps / self.finals[self.best()].rps

    def interval(self, run: Mapping[str, Any]) -> tuple[float, float]:
        """Bootstrap of that ratio, 95 %: the blocks of each trial are drawn anew; all limits and the best of them follow."""
        draw = np.random.default_rng(0)
        every = np.array([limits(cell, draw, DRAWS) for cell in self.finals.values()])  # [cells, draws]
        ratios = every[list(self.finals).index(chosen(run))] / every.max(axis=0)
        low, high = np.quantile(ratios, [(1 - SURE) / 2, (1 + SURE) / 2])
        return float(low), float(high)

    def spent_s(self) -> float:
        """Load seconds of the grid, without its final."""
        return sum(cell.load_s for cell in self.cells.values())


def rows(one: Compared) -> list[dict[str, Any]]:
    """The figures of one curve; of several tuning runs the one that is farthest from the bar."""
    lowest = min(one.runs, key=one.reached)
    low, high = one.interval(lowest)
    holds = True if low >= REACHED else False if high < REACHED else None
    undecided = " UNDECIDED: the interval holds both" if holds is None else ""
    chose, rates = ", ".join(str(chosen(run)) for run in one.runs), one.finals[one.best()].rps
    note = f"95 % interval {low:.3f} to {high:.3f}{undecided}; chose {chose}; best {one.best()} with {rates:.1f}/s"
    tests, longest = (max(run[name] for run in one.runs) for name in ("load_tests", "load_seconds"))
    share, count, told = longest / one.spent_s(), len(one.cells), f"at most {longest:.0f} of {one.spent_s():.0f} s"
    name = f"{one.key}: the tuner's choice over the best cell, lowest of {len(one.runs)} runs"
    found = [
        figure(name, one.reached(lowest), "", REACHED, holds, count, note),
        figure(f"{one.key}: load tests beside the A/A pair", tests, "", TESTS, tests <= TESTS, len(one.runs), ""),
        figure(f"{one.key}: share of the grid's load seconds", share, "", SHARE, share <= SHARE, len(one.runs), told),
    ]
    for name, shares in searched(one.cells, fmean(run["load_seconds"] for run in one.runs)).items():
        note = f"one in ten is below {np.quantile(shares, 0.1):.2f}; equal load seconds, on the measured cells"
        found.append(figure(f"{one.key}: {name} over the best cell, median", median(shares), "", None, None, SEARCHES, note))
    return found


def page(one: Compared, told: Sequence[Mapping[str, Any]]) -> str:
    """docs/grid/KEY.md: every cell of the curve, the final, what each tuning run promised, and the curve's `rows`."""
    lines = [f"# The tuner against brute force: {one.key}", "", *HEAD, ""]
    lines.append(f"{one.scale} times slower, p99 within {one.slo_ms} ms; {machine()['processor']}, {machine()['cores']} cores.")
    lines += ["", f"| batch size | {' | '.join(f'{delay} ms' for delay in DELAYS_MS)} |", "|---" * (len(DELAYS_MS) + 1) + "|"]
    for size in SIZES:
        lines.append(f"| {size} | {' | '.join(f'{one.cells[size, delay].rps:.1f}' for delay in DELAYS_MS)} |")
    finals = ", ".join(f"{place} {cell.rps:.1f}" for place, cell in sorted(one.finals.items(), key=_last))
    lines += ["", f"TorchServe's default: {one.cells[DEFAULT].rps:.1f}. The final: {finals}.", ""]
    lines += [f"- {row['name']}: {row['value']:.4g}{'; ' if row['note'] else ''}{row['note']}" for row in told]
    lines += ["", "| tuning run | chose | promised req/s | p99 in an independent load of it, ms | load tests | seconds |"]
    lines.append("|---" * 6 + "|")
    for run in one.runs:
        spent = f"{run['load_tests']} | {run['load_seconds']:.0f}"
        seen = "not measured" if run["p99_ms"] is None else f"{run['p99_ms']:.0f}"
        lines.append(f"| seed {run['seed']} | {chosen(run)} | {run['rps']:.0f} | {seen} | {spent} |")
    return "\n".join([*lines, ""])


def chosen(run: Mapping[str, Any]) -> Place:
    """What a tuning run chose."""
    return run["batch_size"], run["max_batch_delay_ms"]


def _last(entry: tuple[Place, Cell]) -> float:
    return -entry[1].rps
