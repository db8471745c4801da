"""How many copies of the chosen configuration a target needs."""

import math
from fractions import Fraction
from typing import Any

FACTORS = (1, 1.5, 2, 3)


def replicas(target_rps: float, rate_rps: float, headroom: float) -> int:
    """Smallest n with n * (1 - headroom) * rate_rps >= target_rps; rates in requests/s, rate_rps > 0, 0 <= headroom < 1.

    Computed on the decimal numbers as written: in floats 0.7 * 3 is a little less than 2.1 and would cost a replica.
    """
    return math.ceil(Fraction(str(target_rps)) / ((1 - Fraction(str(headroom))) * Fraction(str(rate_rps))))


def plan(chosen: dict[str, Any], target_rps: float | None, headroom: float) -> dict[str, Any]:
    """Replicas for 1x, 1.5x, 2x and 3x of the target; null with a reason where no rate within the SLO is known.

    `busy` is the share of the rate within the SLO that each replica then carries, `busy_without_one` the same after one
    replica is lost; above 1 the SLO no longer holds. `with_spare` is one more (N+1): with one lost they keep the headroom.
    """
    rate = chosen["rps"]
    reason = _why_not(chosen)
    target = target_rps if target_rps is not None else (None if reason else rate)
    return {
        "rate_rps": rate,
        "target_rps": target,
        "target_origin": "measured" if target_rps is None else "config",
        "headroom": headroom,
        "reason": reason,
        "plan": [_row(factor, target, None if reason else rate, headroom) for factor in FACTORS],
    }


def _why_not(chosen: dict[str, Any]) -> str | None:
    if not chosen["rps"]:
        return "no rate was within the SLO"
    if chosen["slo_met"] is False:
        return f"{chosen['rps']:.3g} requests/s were not within the SLO when they were confirmed"
    return None


def _row(factor: float, target: float | None, rate: float | None, headroom: float) -> dict[str, Any]:
    wanted = None if target is None else round(factor * target, 6)
    if wanted is None or rate is None:
        unknown = dict.fromkeys(("replicas", "busy", "busy_without_one", "with_spare", "busy_with_spare"))
        return {"factor": factor, "target_rps": wanted, **unknown}
    count = replicas(wanted, rate, headroom)
    return {
        "factor": factor,
        "target_rps": wanted,
        "replicas": count,
        "busy": wanted / (count * rate),
        "busy_without_one": wanted / ((count - 1) * rate) if count > 1 else None,
        "with_spare": count + 1,
        "busy_with_spare": wanted / ((count + 1) * rate),
    }
