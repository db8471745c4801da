"""The A/A pair: the same setting under the same load twice. What differs then is the machine, and no gain may be smaller."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from marline.tune._trial import Trial

ATTEMPTS = 4  # trials in which two valid ones are hoped for


@dataclass(frozen=True, slots=True)
class Noise:
    """How far two trials of the same were apart: latencies as ratios of at least 1, and the share of a rate that is worth."""

    p50: float | None
    p99: float | None
    tail: float | None  # of the percentile that the objective is about
    rps_floor: float
    trials: tuple[int, ...]  # the places of both among all trials, from 1

    def as_json(self) -> dict[str, Any]:
        """For result.json."""
        return {
            "p50": self.p50,
            "p99": self.p99,
            "tail": self.tail,
            "rps_floor": round(self.rps_floor, 4),
            "trials": list(self.trials),
        }


def pair(run: Callable[[], Trial], trials: list[Trial], worth: Callable[[float], float]) -> Noise | None:
    """Run the same until two trials are valid; None where they never were. `worth`: of a rate, by a ratio of latency."""
    found: list[Trial] = []
    while len(found) < 2 and len(trials) < ATTEMPTS:
        trial = run()
        found += [trial] if trial.valid else []
    if len(found) < 2:
        return None
    names = ("p50_ms", "p99_ms", "at_percentile_ms")
    p50, p99, tail = (_ratio(getattr(found[0], name), getattr(found[1], name)) for name in names)
    places = tuple(place for place, trial in enumerate(trials, 1) if trial.valid)
    return Noise(p50, p99, tail, worth(tail) if tail is not None else 1.0, places)


def _ratio(one: float, other: float) -> float | None:
    """The larger over the smaller; None where requests were lost."""
    return round(max(one, other) / min(one, other), 4) if np.isfinite(one) and np.isfinite(other) else None
