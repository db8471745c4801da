"""What plan.json says; its keys are a contract, so nothing is renamed here. Rates are requests/s, latencies milliseconds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marline.core import Config, Manifest
from marline.plan._trace import HOUR_MINUTES, MINUTE_S, rates
from marline.plan._twin import Level, Twin
from marline.report import marks, replicas
from marline.tune import at_rate

SIMULATED = "SIMULATED: a twin of one replica that was measured, played as many; no such load was ever sent"
AGREES = 0.05  # the SLO's percentile of the minute, from what its level predicts
LEAST, MOST = 100_000, 8_000_000  # requests of the proof: more than a minute where there are few, less where there are many
SETTLES = 20  # times the objective, before the minute: the fleet begins empty
FROM_CHOSEN = ("batch_size", "max_batch_delay_ms", "workers", "rps", "slo_met", "samples")
LATENCIES = ("p50_ms", "p99_ms", "tail_ms", "mean_batch")
State = dict[str, Any]


def content(config: Config, twin: Twin, result: Mapping[str, Any], loaded: Manifest, run: str) -> dict[str, Any]:
    """Plan a day: every hour by its highest minute, for a number of replicas that stays and for one that follows."""
    asked, minutes = config.plan, np.round(rates(config.plan), 6)
    price, headroom = config.report.price_per_hour, config.report.headroom
    planner = Planner(twin, result["chosen"]["rps"], headroom, asked.spare, price)
    peak, requests = float(minutes.max()), float(minutes.sum() * MINUTE_S)
    recommended = planner.needed(peak)
    planned = recommended if asked.replicas is None else asked.replicas
    hours = [
        {"hour": number, "mean_rps": round(float(hour.mean()), 2), **planner.load(float(hour.max()), planned)}
        for number, hour in enumerate(minutes.reshape(-1, HOUR_MINUTES))
    ]
    return {
        "schema": 1,
        "simulated": True,
        "model": config.model,
        "run": run,
        "marks": [SIMULATED, *marks(loaded.facts["weights"], result["accelerator"])],
        "slo": result["slo"],
        "accelerator": result["accelerator"],
        "machine": result["machine"],
        "chosen": {key: result["chosen"][key] for key in FROM_CHOSEN},
        "asked": asked.model_dump(mode="json") | {"headroom": headroom, "price_per_hour": price},
        "requests": round(requests),
        "peak": {
            **max(hours, key=lambda hour: hour["peak_rps"]),
            "recommended": recommended,
            "planned": planned,
            "most_rps": round(twin.most(planned), 2),
            "without_one": planner.state(peak, planned - 1) if planned > 1 else None,
        },
        "minutes_rps": minutes.tolist(),
        "hours": hours,
        "totals": {name: _total([hour[name] for hour in hours], requests) for name in ("fixed", "hourly")},
        "proof": proof(twin, peak, planned),
        "checked": _checked(twin, result["chosen"]),
    }


@dataclass(frozen=True, slots=True)
class Planner:
    """The twin, and the report's rule: ceil(load / ((1 - headroom) rate)), `rate_rps` being what one was measured to carry."""

    twin: Twin
    rate_rps: float
    headroom: float
    spare: int
    price_per_hour: float | None

    def rule(self, rps: float) -> int:
        """Replicas by the rule, one for no load."""
        return max(1, replicas(rps, self.rate_rps, self.headroom))

    def needed(self, rps: float) -> int:
        """Those by the rule, never fewer than the twin asks for, and the spare ones."""
        return max(self.rule(rps), self.twin.fewest(rps) or 0) + self.spare

    def load(self, rps: float, fixed: int) -> dict[str, Any]:
        """A load on a number of replicas that is fixed, and on one that follows it."""
        return {
            "peak_rps": rps,
            "rule": self.rule(rps),
            "fewest": self.twin.fewest(rps),
            "fixed": self.state(rps, fixed),
            "hourly": self.state(rps, self.needed(rps)),
        }

    def state(self, rps: float, count: int) -> State:
        """`busy` is the share of the measured rate within the SLO, `utilisation` of what the twin carries at most.

        Where that is above `FULL` there is no steady state, and latencies are taken to be infinite.
        """
        carried = rps <= self.twin.carries(count)
        told = _latencies(self.twin.level(rps, count)) if rps and carried else dict.fromkeys(LATENCIES)
        return {
            "replicas": count,
            **told,
            "slo_met": not rps or (told["tail_ms"] is not None and told["tail_ms"] <= self.twin.slo_ms),
            "busy": round(rps / (count * self.rate_rps), 4),
            "utilisation": round(rps / (count * self.twin.alone.saturated_rps), 4),
            "cost": None if self.price_per_hour is None else round(self.price_per_hour * count, 6),
        }


def _latencies(told: Level) -> dict[str, float | None]:
    """Infinite ones, of requests that are refused, are null."""
    return {key: round(value, 3) if math.isfinite(value := getattr(told, key)) else None for key in LATENCIES}


def _total(states: Sequence[State], requests: float) -> dict[str, Any]:
    """Replica-hours of the day and what they cost, and that per million requests."""
    spent = {"replica_hours": sum(state["replicas"] for state in states), "cost": None, "cost_per_million": None}
    if states[0]["cost"] is None:
        return spent
    cost = sum(state["cost"] for state in states)
    return spent | {"cost": round(cost, 6), "cost_per_million": round(cost / requests * 1e6, 6)}


def proof(twin: Twin, rps: float, count: int) -> dict[str, Any]:
    """The minute at the peak request by request, each one dealt to a replica, beside what the level predicts of it.

    Nothing is compared where the load is more than the replicas carry: a queue that grows has no percentiles.
    """
    seconds = min(max(MINUTE_S, LEAST / rps), MOST / rps)
    settle_s = min(max(1.0, SETTLES * twin.slo_ms / 1e3), seconds / 2)
    many = int(rps * (settle_s + seconds))
    arrivals_s = np.cumsum(np.random.default_rng([twin.seed, 3]).standard_exponential(many)) / rps
    latencies_ms, mean_batch = twin.play(arrivals_s, count)
    judged = latencies_ms[arrivals_s >= settle_s]
    played, level = twin.judged(judged, mean_batch, rps, count), twin.level(rps, count)
    stable = rps <= twin.carries(count) and math.isfinite(level.tail_ms) and math.isfinite(played.tail_ms)
    off = level.tail_ms / played.tail_ms - 1 if stable else None
    return {
        "rps": rps,
        "replicas": count,
        "seconds": round(seconds, 3),
        "settle_s": round(settle_s, 3),
        "requests": int(judged.size),
        "played": _latencies(played),
        "level": _latencies(level),
        "off": None if off is None else round(off, 5),
        "bar": AGREES,
        "agrees": None if off is None else abs(off) <= AGREES,
    }


def _checked(twin: Twin, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What the twin of one replica says of the rate that was measured, beside what was."""
    told = at_rate(twin.service, twin.setting, chosen["rps"], twin.percentile, seed=twin.seed)
    said = _latencies(Level(chosen["rps"], 1, told.p50_ms, told.p99_ms, told.tail_ms, told.mean_batch))
    return {"rps": chosen["rps"], "measured": {key: chosen[key] for key in ("p50_ms", "p99_ms")}, "twin": said}
