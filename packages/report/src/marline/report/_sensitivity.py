"""What another objective or another load would do: measured where trials were there, beside what the twin says."""

from collections.abc import Mapping, Sequence
from typing import Any

from marline.report._raw import Seen, at, of

OBJECTIVES, LOADS = (0.8, 1.0, 1.2), (0.5, 1.0, 1.5)
NEAR = 0.1  # of a load: a trial that close to it speaks for it


def sensitivity(report: Mapping[str, Any], seen: Sequence[Seen]) -> dict[str, Any] | None:
    """Of the chosen configuration; None where no rate held.

    `objective`: the highest rate that a trial held within a multiple of the SLO, and the twin's limit, with the best
    configuration for it. `load`: the percentile of the SLO in the trial nearest to a multiple of the chosen rate, within
    10 % of it, and the twin's; a percentile that lost requests are beyond is None.
    """
    if at(seen, report["chosen"]) is None:
        return None
    outlook, ours = report.get("outlook") or {}, of(seen, report["chosen"])
    limits = {one["factor"]: one for one in outlook.get("objective", ())}
    loads = {one["factor"]: one for one in outlook.get("load", ())}
    return {
        "objective": [_objective(factor, report["slo"]["ms"], ours, limits.get(factor)) for factor in OBJECTIVES],
        "load": [_load(factor, factor * report["chosen"]["rps"], ours, loads.get(factor)) for factor in LOADS],
    }


def _objective(factor: float, slo_ms: float, ours: Sequence[Seen], told: Mapping[str, Any] | None) -> dict[str, Any]:
    tails = [(one.trial["offered_rps"], one.facts["tail_ms"]) for one in ours if not one.trial.get("limit")]
    held = [rate for rate, tail_ms in tails if tail_ms is not None and tail_ms <= factor * slo_ms]
    return {
        "factor": factor,
        "slo_ms": round(factor * slo_ms, 3),
        "measured_rps": max(held, default=None),
        "simulated": None if told is None else {key: value for key, value in told.items() if key != "factor"},
    }


def _load(factor: float, rps: float, ours: Sequence[Seen], told: Mapping[str, Any] | None) -> dict[str, Any]:
    nearest = min(ours, key=lambda one: abs(one.trial["offered_rps"] - rps))
    near = abs(nearest.trial["offered_rps"] / rps - 1) <= NEAR
    return {
        "factor": factor,
        "rps": round(rps, 3),
        "measured": {"rps": nearest.trial["offered_rps"], "tail_ms": nearest.facts["tail_ms"]} if near else None,
        "simulated": None if told is None else {"tail_ms": told["tail_ms"], "mean_batch": told["mean_batch"]},
    }
