"""The picture of goodput against load, with the knee, the chosen rate and the plateau; and the one of where time goes."""

from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from marline.report._pictures import ACCENT, INK, PALE, SOFT, STYLE, Drawn, draw, key_of, keys_of, legend, stamp, tip
from marline.report._words import number

COLOURS = {"measured": ACCENT, "service curve": ACCENT, "simulated": PALE}
Report = dict[str, Any]


def goodput_picture(report: Report, width: float) -> Drawn:
    """Goodput against offered load, a line for each configuration; width in inches."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": f"goodput {width}"}):
        figure = Figure(figsize=(width, 3.6), layout="constrained")
        axes = figure.subplots()
        most = max((trial["offered_rps"] for trial in report["trials"]), default=1.0)
        axes.plot([0, most], [0, most], color=PALE, linewidth=0.9, linestyle=(0, (5, 4)), zorder=1)
        for key in sorted(keys_of(report), key=lambda key: (key == key_of(report["chosen"]), key == key_of(report["default"]))):
            _draw_line(axes, report, key)
        _draw_marks(axes, report)
        axes.set_xlim(0, 1.04 * most)
        axes.set_ylim(0, 1.1 * most)
        axes.grid(axis="y", color="#eef0f2", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("offered load, requests/s")
        axes.set_ylabel("goodput, requests/s")
        legend(axes, report, columns=2 if width > 6 else 1)
        stamp(figure, report)
        return draw(figure)


def _draw_line(axes: Axes, report: Report, key: tuple[int, int, int]) -> None:
    pairs = zip(report["trials"], report["observed"], strict=True)
    ours = [(trial["offered_rps"], seen) for trial, seen in pairs if trial["valid"] and key_of(trial) == key]
    ours.sort(key=lambda pair: pair[0])
    chosen, default = key == key_of(report["chosen"]), key == key_of(report["default"])
    colour = ACCENT if chosen else INK if default else PALE
    names = " and ".join(["chosen"] * chosen + ["TorchServe's default"] * default)
    label = f"{names}: batch {key[0]}, delay {key[1]} ms" if names else None
    rates, goodput = [rate for rate, _ in ours], [seen["goodput_rps"] for _, seen in ours]
    axes.plot(rates, goodput, color=colour, linewidth=1.9 if names else 1.1, marker="o", markersize=4.5, zorder=3, label=label)
    if chosen:
        answered = [seen["answered_rps"] for _, seen in ours]
        axes.plot(rates, answered, color=ACCENT, linewidth=0.9, linestyle=":", zorder=3, label="chosen: late answers too")
    for rate, seen in ours:
        words = f"offered {number(rate)}, in time {number(seen['goodput_rps'])}, answered {number(seen['answered_rps'])} per s"
        tip(axes, rate, seen["goodput_rps"], f"batch {key[0]}, delay {key[1]} ms, workers {key[2]}: {words}")


def _draw_marks(axes: Axes, report: Report) -> None:
    """Lines at the chosen rate, the knee and the plateau, each with its names; some may be at the same load."""
    knee, places = report["knee"], dict[float, list[str]]()
    marks = (("chosen rate", report["chosen"]["rps"]), ("knee", knee["knee_rps"]), ("plateau", knee["plateau_rps"]))
    for name, rate in marks:
        if rate:
            places.setdefault(rate, []).append(name)
    for turn, (rate, names) in enumerate(sorted(places.items())):
        axes.axvline(rate, color=SOFT, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
        height = (0.03 + 0.075 * turn, "bottom")
        left = rate > 0.5 * max(trial["offered_rps"] for trial in report["trials"])
        axes.annotate(
            ", ".join(names),
            (rate, height[0]),
            (-4 if left else 4, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if left else "left",
            va=height[1],
            fontsize=8,
            color=SOFT,
        )


def split_picture(report: Report) -> Drawn | None:
    """Where a mean request at the chosen rate spends its time; None where no rate held."""
    told = report["breakdown"]
    if told is None:
        return None
    parts = [part for part in told["parts"] if part["part"] != "wait" or not told["within"]]
    bars = [parts[0], *told["within"], *parts[1:]]
    with mpl.rc_context(STYLE | {"svg.hashsalt": "split"}):
        figure = Figure(figsize=(4.6, 0.75 + 0.27 * len(bars)), layout="constrained")
        axes = figure.subplots()
        for place, bar in enumerate(reversed(bars)):
            simulated = bar["origin"] == "simulated"
            look: dict[str, Any] = {"hatch": "////", "edgecolor": "white"} if simulated else {}
            axes.barh(place, max(0.0, bar["ms"]), 0.66, color=COLOURS.get(bar["origin"], SOFT), linewidth=0, **look)
            words = f" {number(bar['ms'])}" + " (simulated)" * simulated
            axes.annotate(words, (max(0.0, bar["ms"]), place), va="center", fontsize=8, color=SOFT)
        axes.set_yticks(range(len(bars)), [bar["part"] for bar in reversed(bars)])
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("ms of a mean request")
        axes.margins(x=0.32)
        axes.set_xlim(left=0)
        stamp(figure, report)
        return draw(figure)
