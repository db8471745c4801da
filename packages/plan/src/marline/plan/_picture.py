"""The day in three pictures over one another: load, replicas, and the latency that the objective is about."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from marline.report import ACCENT, INK, SOFT, STYLE, accelerator_words, draw, slo_line

Plan = dict[str, Any]
ABOVE = 1.3  # an infinite latency stands so far above all others


def day_picture(plan: Plan, width: float) -> str:
    """As SVG; width in inches. The same plan always gives the same bytes."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": f"plan {width}"}):
        figure = Figure(figsize=(width, 6.2), layout="constrained")
        load, count, latency = figure.subplots(3, sharex=True)
        minutes = np.asarray(plan["minutes_rps"])
        load.fill_between((np.arange(minutes.size) + 0.5) / 60, minutes, color=ACCENT, alpha=0.15, linewidth=0)
        load.plot((np.arange(minutes.size) + 0.5) / 60, minutes, color=ACCENT, linewidth=1.6)
        load.set_ylabel("requests/s")
        _steps(count, plan, [hour["fixed"]["replicas"] for hour in plan["hours"]], INK, "fixed")
        _steps(count, plan, [hour["hourly"]["replicas"] for hour in plan["hours"]], ACCENT, "by the hour")
        if all(hour["fewest"] is not None for hour in plan["hours"]):
            _steps(count, plan, [hour["fewest"] for hour in plan["hours"]], SOFT, "fewest, by the twin", ":")
        count.set_ylabel("replicas")
        _latencies(latency, plan)
        for axes in (load, count, latency):
            axes.set_ylim(0, 1.12 * axes.get_ylim()[1] if axes is count else None)
            axes.grid(axis="y", color="#eef0f2", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.yaxis.set_major_formatter("{x:,.0f}")
        latency.set_xlim(0, len(plan["hours"]))
        latency.set_xlabel("hour")
        if len(plan["hours"]) % 4 == 0:
            latency.set_xticks(range(0, len(plan["hours"]) + 1, max(1, len(plan["hours"]) // 24) * 4))
        emulated = plan["accelerator"]["kind"] == "emulated"
        stamp = "SIMULATED" + (f", {accelerator_words(plan['accelerator'])}" if emulated else "")
        figure.suptitle(stamp, x=0.01, ha="left", fontsize=9 if width > 6 else 7.5, fontweight="bold")
        return draw(figure).svg


def _latencies(axes: Axes, plan: Plan) -> None:
    slo, hours = plan["slo"], plan["hours"]
    finite = [ms for hour in hours for name in ("fixed", "hourly") if (ms := hour[name]["tail_ms"]) is not None]
    top = ABOVE * max([slo["ms"], *finite])
    for name, colour, label in (("fixed", INK, "fixed"), ("hourly", ACCENT, "by the hour")):
        states = [hour[name] for hour in hours]
        heights = [one["tail_ms"] or (np.nan if one["slo_met"] else top) for one in states]  # none at all without a request
        _steps(axes, plan, heights, colour, label)
    slo_line(axes, slo)
    axes.set_ylabel(f"p{slo['percentile']:g}, ms")
    axes.set_ylim(top=1.02 * top)


def _steps(axes: Axes, plan: Plan, heights: list[float], colour: str, label: str, style: str = "-") -> None:
    edges = np.arange(len(plan["hours"]) + 1)
    axes.stairs(heights, edges, baseline=None, color=colour, linewidth=1.6, linestyle=style, label=label)
    axes.legend(frameon=False, fontsize=8, ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1, columnspacing=1)
