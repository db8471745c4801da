"""What the cells of the accuracy benchmark show: its table, and the median errors.

The highest rate that trials of seconds show is above the one that lasts: a queue begins empty, and needs longer to grow than
the trial is. So the rate is found in the same way of both, the server and the twin: where the p99 of the trials meets the
objective, on straight lines of its logarithm over the rate; the twin is played with the very arrivals of each trial, so that
what luck a schedule has, both have. Beside it stands R, the twin's highest rate in the long run, which is what tuning goes by.
"p99" is that of the trial at 0.8 R.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from statistics import median
from typing import Any

from packages.handler.bench.parts.figure import figure

BARS = {"highest rate": 0.05, "p99": 0.15, "saturated": 0.05}
LONG = "highest rate in the long run"
HEAD = (
    "Written by `python -m packages.tune.bench.tune accuracy`; `accuracy.py` and `accuracy_table.py` of `bench/parts` say how",
    "each figure is made. Settings are (batch size, delay in ms, workers). The twin knows what the service curve saw of one",
    "worker; nothing was fitted to these trials. The highest rate is the one that trials of 15 to 40 s show, found the",
    "same way of server and twin; R is the twin's in the long run. EMULATED: the forward pass sleeps along published curves.",
)
RATES, TAILS = ("R", "highest req/s: twin", "measured", "error"), ("p99 at req/s", "twin, ms", "measured", "error")
TITLES = ("setting", *RATES, *TAILS, "saturated req/s: twin", "measured", "error", "invalid trials")
COLUMNS = (f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|")


def rows(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The median error of each figure, which is what has a bar."""
    curves, found = len({cell["curve"] for cell in cells}), []
    for name, bar in (*BARS.items(), (LONG, None)):
        misses = [abs(_errors(cell)[name]) for cell in cells]
        worst = max(cells, key=lambda cell: abs(_errors(cell)[name]))
        note = f"{len(cells)} settings of {curves} curves; worst {max(misses):.1%} ({worst['curve']}, {worst['setting']})"
        middle, holds = median(misses), None if bar is None else median(misses) <= bar
        at_most = None if bar is None else 100 * bar
        found.append(figure(f"{name}: median error of the twin", 100 * middle, "%", at_most, holds, len(misses), note))
    return found


def table(cells: Sequence[Mapping[str, Any]]) -> str:
    """docs/twin.md: every cell, misses included."""
    lines = ["# The twin against a real TorchServe", "", *HEAD, ""]
    for key, group in groupby(cells, key=lambda cell: cell["curve"]):
        found = list(group)
        lines += [f"## {key}, {found[0]['scale']:g} times slower, p99 within {found[0]['slo_ms']:g} ms", "", *COLUMNS]
        lines += [row(cell) for cell in found] + [""]
    medians = [f"{name} {median(abs(_errors(cell)[name]) for cell in cells):.1%}" for name in (*BARS, LONG)]
    bars = ", ".join(f"{name} {bar:.0%}" for name, bar in BARS.items())
    return "\n".join([*lines, f"Median error over {len(cells)} settings: {', '.join(medians)}; at most: {bars}.", ""])


def row(cell: Mapping[str, Any]) -> str:
    """One cell as a line of the table."""
    first, errors, (twin, measured) = cell["trials"][0], _errors(cell), _highest(cell)
    rates = f"{cell['predicted_rps']:.1f} | {twin:.1f} | {measured:.1f} | {errors['highest rate']:+.1%}"
    tails = f"{first['rps']:.1f} | {first['twin_p99_ms']:.0f} | {first['measured_p99_ms']:.0f} | {errors['p99']:+.1%}"
    most = f"{cell['predicted_saturated_rps']:.1f} | {cell['measured_saturated_rps']:.1f} | {errors['saturated']:+.1%}"
    invalid = sum(one["invalid"] is not None for one in cell["trials"])
    return f"| {tuple(cell['setting'])} | {rates} | {tails} | {most} | {invalid or ''} |"


def crossing(points: Sequence[tuple[float, float]], slo_ms: float) -> float:
    """The rate at which p99 meets the objective, on lines through (rate, logarithm of p99); beyond them on the last."""
    ordered = sorted(points)
    pairs = list(pairwise(ordered))
    (low, low_ms), (high, high_ms) = next((pair for pair in pairs if pair[0][1] <= slo_ms < pair[1][1]), None) or (
        pairs[0] if ordered[0][1] > slo_ms else pairs[-1]
    )
    slope = math.log(high_ms / low_ms) / (high - low)
    return low + math.log(slo_ms / low_ms) / slope if slope > 0 else high


def _highest(cell: Mapping[str, Any]) -> tuple[float, float]:
    """The highest rate within the objective by the twin and by the server, each by the same trials."""
    twin, measured = (
        crossing([(one["rps"], one[f"{who}_p99_ms"]) for one in cell["trials"]], cell["slo_ms"]) for who in ("twin", "measured")
    )
    return twin, measured


def _errors(cell: Mapping[str, Any]) -> dict[str, float]:
    first, (twin, measured) = cell["trials"][0], _highest(cell)
    return {
        "highest rate": twin / measured - 1,
        LONG: cell["predicted_rps"] / measured - 1,
        "p99": first["twin_p99_ms"] / first["measured_p99_ms"] - 1,
        "saturated": cell["predicted_saturated_rps"] / cell["measured_saturated_rps"] - 1,
    }
