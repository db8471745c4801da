"""The map of batch size and delay: the rate of each pair, as measured where it was, else as the twin predicts it."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from marline.report._pictures import ACCENT, INK, PALE, SOFT, STYLE, Drawn, draw, stamp, tip
from marline.report._raw import Seen, of
from marline.report._words import number

COLOURS = LinearSegmentedColormap.from_list("rates", ["#f1f6f6", ACCENT])
DARK = 0.55  # of the highest rate: on cells above it words are white
Report = dict[str, Any]
Cell = dict[str, Any]


def cells(report: Report, seen: Sequence[Seen]) -> list[Cell]:
    """A cell for each (batch size, delay) that was predicted, with the chosen number of workers; no batches of 1.

    `rps` and `mean_batch` are those of the highest rate that a trial held (`origin` measured), else the predicted ones, 0 where
    none is; `missed_rps` is the lowest rate above that at which a trial missed the SLO.
    """
    found = []
    for told in report["predictions"]:
        if told["workers"] != report["chosen"]["workers"] or told["batch_size"] <= 1:
            continue
        ours = of(seen, told)
        held = [one.trial for one in ours if one.facts["within"]]
        best = held[-1] if held else told
        missed = [one.trial["offered_rps"] for one in ours if not one.facts["within"]]
        found.append(
            {key: told[key] for key in ("batch_size", "max_batch_delay_ms", "workers")}
            | {"rps": best["rps"], "mean_batch": best["mean_batch"], "origin": "measured" if held else "predicted"}
            | {"missed_rps": min((rate for rate in missed if not held or rate > best["rps"]), default=None)}
        )
    return found


def map_picture(report: Report) -> Drawn | None:
    """The map; None where nothing was predicted."""
    told = report["map"]
    if not told:
        return None
    sizes, delays = (sorted({cell[key] for cell in told}) for key in ("batch_size", "max_batch_delay_ms"))
    with mpl.rc_context(STYLE | {"svg.hashsalt": "map"}):
        figure = Figure(figsize=(max(3.6, 1.2 + 0.78 * len(delays)), 1.2 + 0.5 * len(sizes)), layout="constrained")
        axes = figure.subplots()
        most = max(1e-9, *(cell["rps"] for cell in told))
        for cell in told:
            place = delays.index(cell["max_batch_delay_ms"]), sizes.index(cell["batch_size"])
            _draw_cell(axes, place, cell, cell["rps"] / most, chosen=_pair(cell) == _pair(report["chosen"]))
        axes.set_xlim(-0.5, len(delays) - 0.5)
        axes.set_ylim(-0.5, len(sizes) - 0.5)
        axes.set_xticks(range(len(delays)), [str(delay) for delay in delays])
        axes.set_yticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set_xlabel("delay, ms")
        axes.set_ylabel("batch size")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        stamp(figure, report)
        return draw(figure)


def _draw_cell(axes: Axes, place: tuple[int, int], cell: Cell, share: float, *, chosen: bool) -> None:
    """A framed cell was measured (a heavy frame: chosen), one with a cross was tried and missed."""
    corner, measured = (place[0] - 0.47, place[1] - 0.45), cell["origin"] == "measured"
    dark, none = share > DARK, not cell["rps"]
    look: dict[str, Any] = {"facecolor": "white", "edgecolor": PALE, "hatch": "////"} if none else {"facecolor": COLOURS(share)}
    axes.add_patch(Rectangle(corner, 0.94, 0.9, linewidth=0, **look))
    if measured:
        axes.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor=INK, linewidth=2.6 if chosen else 1.1, zorder=3))
    colour = SOFT if none else "white" if dark else INK
    said = "none" if none else number(cell["rps"]) if measured else f"≈ {number(cell['rps'])}"
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1} if none else None
    axes.text(place[0], place[1] + 0.13, said, ha="center", va="center", fontsize=8, color=colour, bbox=box)
    if not none and cell["mean_batch"] is not None:
        batch = f"{number(cell['mean_batch'], 2)} of {cell['batch_size']}" + " ✕" * (cell["missed_rps"] is not None)
        axes.text(place[0], place[1] - 0.22, batch, ha="center", va="center", fontsize=6.5, color=colour)
    tip(axes, *place, _tip(cell))


def _tip(cell: Cell) -> str:
    pair = f"batch {cell['batch_size']}, delay {cell['max_batch_delay_ms']} ms"
    rate = f"{number(cell['rps'])} requests/s {cell['origin']}" if cell["rps"] else f"no rate within the SLO, {cell['origin']}"
    missed = "" if cell["missed_rps"] is None else f"; missed the SLO at {number(cell['missed_rps'])}"
    return f"{pair}: {rate}, mean batch {number(cell['mean_batch'], 2)}{missed}"


def _pair(config: dict[str, Any]) -> tuple[int, int]:
    return config["batch_size"], config["max_batch_delay_ms"]
