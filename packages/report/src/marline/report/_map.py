"""The map of batch size and delay: what the twin predicts for each pair, and which were measured."""

from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from marline.report._pictures import ACCENT, INK, PALE, SOFT, STYLE, svg
from marline.report._words import number

COLOURS = LinearSegmentedColormap.from_list("rates", ["#f1f6f6", ACCENT])
DARK = 0.55  # of the highest rate: on cells above it words are white
Report = dict[str, Any]
Pair = tuple[int, int]


def cells(report: Report) -> dict[Pair, float]:
    """The highest rate within the SLO predicted for (batch size, delay), with the chosen number of workers; no batches of 1."""
    workers = report["chosen"]["workers"]
    return {_pair(told): told["rps"] for told in report["predictions"] if told["workers"] == workers and told["batch_size"] > 1}


def map_picture(report: Report) -> str:
    """The map as SVG; empty where nothing was predicted."""
    told = cells(report)
    if not told:
        return ""
    sizes, delays = sorted({size for size, _ in told}), sorted({delay for _, delay in told})
    with mpl.rc_context(STYLE | {"svg.hashsalt": "map"}):
        figure = Figure(figsize=(max(3.2, 1.4 + 0.62 * len(delays)), 1.1 + 0.36 * len(sizes)), layout="constrained")
        axes = figure.subplots()
        most = max(*told.values(), 1e-9)
        for (size, delay), rate in told.items():
            _draw_cell(axes, (delays.index(delay), sizes.index(size)), rate, rate / most)
        _outline(axes, report, sizes, delays)
        axes.set_xlim(-0.5, len(delays) - 0.5)
        axes.set_ylim(-0.5, len(sizes) - 0.5)
        axes.set_xticks(range(len(delays)), [str(delay) for delay in delays])
        axes.set_yticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set_xlabel("delay, ms")
        axes.set_ylabel("batch size")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return svg(figure)


def _draw_cell(axes: Axes, place: tuple[int, int], rate: float, share: float) -> None:
    corner = (place[0] - 0.47, place[1] - 0.45)
    if rate:
        axes.add_patch(Rectangle(corner, 0.94, 0.9, facecolor=COLOURS(share), linewidth=0))
    else:
        axes.add_patch(Rectangle(corner, 0.94, 0.9, facecolor="white", edgecolor=PALE, hatch="////", linewidth=0))
    words, colour = (number(rate), "white" if share > DARK else INK) if rate else ("none", SOFT)
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1} if not rate else None
    axes.text(*place, words, ha="center", va="center", fontsize=8, color=colour, bbox=box)


def _outline(axes: Axes, report: Report, sizes: list[int], delays: list[int]) -> None:
    """A frame around what was measured, a heavy one around what was chosen."""
    chosen = report["chosen"]
    measured = {_pair(trial) for trial in report["trials"] if trial["valid"] and trial["workers"] == chosen["workers"]}
    for size, delay in sorted(measured, key=lambda pair: pair == _pair(chosen)):
        if size in sizes and delay in delays:
            corner = (delays.index(delay) - 0.47, sizes.index(size) - 0.45)
            width = 2.6 if (size, delay) == _pair(chosen) else 1.1
            axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor=INK, linewidth=width, zorder=3))


def _pair(config: dict[str, Any]) -> Pair:
    return config["batch_size"], config["max_batch_delay_ms"]
