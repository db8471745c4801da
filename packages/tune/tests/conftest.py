"""Trials of a server that is a formula: its latency grows as its load comes near its capacity."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from marline.tune import Point, Setting, Trial

TRIAL = Trial(
    setting=Setting(1, 100, 1),
    purpose="search",
    offered_rps=10.0,
    seconds=3.0,
    valid=True,
    invalid_reason=None,
    p50_ms=5.0,
    p95_ms=9.0,
    p99_ms=10.0,
    at_percentile_ms=10.0,
    samples=30,
    errors=0,
    slo_met=None,
    mean_batch=1.0,
    service_p99_ms=9.5,
    lag_p99_ms=0.4,
    samples_file="samples/001.npz",
)


@dataclass
class Formula:
    """A tail of `idle_ms / (1 - rate / capacity)`, infinite at the capacity and beyond; keeps every trial."""

    capacity: Callable[[Setting], float]
    idle_ms: float = 10.0
    invalid_from_rps: float = float("inf")
    trials: list[Trial] = field(default_factory=list)

    def run(self, setting: Setting, rps: float, purpose: str = "search") -> Trial:
        load = rps / self.capacity(setting)
        tail = self.idle_ms / (1 - load) if load < 1 else float("inf")
        valid = rps < self.invalid_from_rps
        trial = replace(
            TRIAL,
            setting=setting,
            purpose=purpose,
            offered_rps=rps,
            at_percentile_ms=tail,
            p99_ms=tail,
            valid=valid,
            invalid_reason=None if valid else "requests were sent late",
        )
        self.trials.append(trial)
        return trial


@pytest.fixture
def trial() -> Trial:
    return TRIAL


@pytest.fixture
def formula() -> type[Formula]:
    return Formula


@pytest.fixture
def curve() -> list[Point]:
    return [Point(b, 30, 10.0 + b, 11.0 + b, 0.5, 9.0 + b, 0.5) for b in (1, 2, 4, 8)]
