"""How fast the twin is: on one core, compiled beforehand as in every run but the first."""

import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from marline.tune import Point, Service, Setting, predict, simulate
from packages.handler.bench.parts.figure import figure, spread

REQUESTS, PASSES, LEAST_M, MOST_S = 2_000_000, 5, 1.0, 10.0
SLO_MS = 100.0
SETTINGS = (Setting(1, 100, 1), Setting(1, 100, 4), Setting(8, 5, 1), Setting(16, 2, 2), Setting(32, 20, 4))
GRID = [
    Setting(size, delay, workers)
    for size in (1, 2, 4, 8, 16, 24, 32, 48, 64, 128)
    for delay in (1, 2, 5, 20, 50)
    for workers in (1, 2, 3, 4)
]


def speed() -> list[dict[str, Any]]:
    """Simulated requests a second at 80 % load, and seconds for the highest rate of 200 settings."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return [_requests(), _grid()]
    finally:
        os.sched_setaffinity(0, cores)


def _service() -> Service:
    """Like a ResNet-50 on a T4 that jitters: 13 ms up to 8 requests, 0.9 ms each beyond."""
    chance = np.random.default_rng(0).lognormal(0, 0.1, (30, 1))
    points = [
        Point.of(size, np.array([[0.2 * size, max(13.0, 0.9 * size), 0.1 * size]]) * chance)
        for size in (1, 2, 4, 8, 16, 32, 64, 128)
    ]
    return Service(points=tuple(points), batch_ms=1.0, request_ms=0.1, http_ms=1.0, shared=True)


def _requests() -> dict[str, Any]:
    service, gaps = _service(), np.random.default_rng(1).exponential(1.0, REQUESTS)
    slowest: dict[Setting, float] = {}
    for setting in SETTINGS:
        (found,) = predict(service, [setting], SLO_MS, 99)
        arrivals_s = np.cumsum(gaps) / (0.8 * found.saturated_rps)
        taken = [_seconds(lambda s=setting, a=arrivals_s: simulate(service, s, a)) for _ in range(PASSES)]  # type: ignore[misc]
        slowest[setting] = REQUESTS / median(taken) / 1e6
    worst = min(slowest.values())
    seen = "; ".join(f"({one.batch_size}, {one.max_batch_delay_ms}, {one.workers}) {many:.1f}" for one, many in slowest.items())
    return figure("simulated requests a second, one core", worst, "million", LEAST_M, worst >= LEAST_M, PASSES, seen)


def _grid() -> dict[str, Any]:
    service = _service()
    taken = [_seconds(lambda: predict(service, GRID, SLO_MS, 99)) for _ in range(PASSES)]
    name = f"highest rate of {len(GRID)} settings, by bisection"
    return figure(name, median(taken), "s", MOST_S, median(taken) <= MOST_S, PASSES, f"{spread(taken)} s on one core")


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
