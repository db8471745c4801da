"""What follows from the raw rows of the trials: the keys of report.json that a capacity planner asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

from marline.core import ReportConfig
from marline.report._breakdown import breakdown
from marline.report._cold import cold_start
from marline.report._cost import cost
from marline.report._interval import gain_bounds, interval
from marline.report._knee import bracket, knee
from marline.report._map import cells
from marline.report._raw import KEYS, Seen, at, of
from marline.report._resources import resources
from marline.report._scaling import scaling
from marline.report._sensitivity import sensitivity


def capacity(report: dict[str, Any], config: ReportConfig, seen: Sequence[Seen]) -> dict[str, Any]:
    """Everything beyond tune's own result; `seen` are the trials with their rows."""
    chosen = at(seen, report["chosen"])
    return {
        "observed": [one.facts for one in seen],
        "knee": knee(of(seen, report["chosen"])),
        "confidence": _confidence(report, seen, chosen),
        "map": cells(report, seen),
        "breakdown": breakdown(chosen, report["curve"], report.get("outlook")),
        "resources": resources(report, chosen),
        "scaling": scaling(report, seen),
        "cost": cost(config.price_per_hour, config.currency, config.headroom, chosen),
        "cold_start": cold_start(report["deployed"], report["archive"], seen),
        "sensitivity": sensitivity(report, seen),
    }


def _confidence(report: Mapping[str, Any], seen: Sequence[Seen], chosen: Seen | None) -> dict[str, Any]:
    """How sure the verdict is: intervals, brackets, and what it took."""
    percentile = report["slo"]["percentile"]
    ours, usual = (bracket(of(seen, report[name])) for name in ("chosen", "default"))
    tail = None if chosen is None else interval(chosen.rows.latencies_ms, percentile, chosen.rows.seconds)
    return {
        "measurements": len(seen),
        "configurations": len({tuple(one.trial[key] for key in KEYS) for one in seen}),
        "predicted": len(report["predictions"]),
        "percentile": percentile,
        "tail_ms": None if chosen is None else chosen.facts["tail_ms"],
        "tail_interval": tail,
        "bracket": ours,
        "default_bracket": usual,
        "gain_bounds": gain_bounds(ours, usual),
    }
