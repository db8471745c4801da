"""One cell of a brute-force grid: the limit of a batch size and a delay, found by real trials on both sides of it.

A trial lasts as long as the tuner's own by default: 10 s, and up to twice as long where requests come slowly. It holds where at
most one of a hundred requests is late and no queue grew: a rate at which it does is more than the server can do for long.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marline.core import StageError, newest
from marline.loadtest import Load, growing
from marline.tune._trial import ENOUGH, LONGER
from packages.tune.bench.parts.tunings import MODEL, RUNS, Started, loaded

SIZES, DELAYS_MS = (2, 4, 8, 16, 32, 64), (1, 2, 5, 10, 20)
AXES = (f"tune.batch_sizes=[{','.join(map(str, SIZES))}]", f"tune.max_batch_delays_ms=[{','.join(map(str, DELAYS_MS))}]")
WARM_UP_S = 2.0  # of a trial
NARROW, MOST = 1.08, 10  # when a bracket is narrow enough, and trials at most
BLOCKS = 10
MISSES = 0.01  # the share that may be over the objective


@dataclass(frozen=True, slots=True)
class Cell:
    """The trials of a cell: rate, whether a queue grew, and of each block of requests how many it had and how many missed."""

    rps: float
    trials: Sequence[dict[str, Any]]
    load_s: float


@dataclass(frozen=True, slots=True)
class Pace:
    """Where the first trial of a cell is, by which steps a bracket is sought, and how long a trial lasts at least."""

    first_rps: float
    step: float
    seconds: float


def measured_cell(started: Started, pace: Pace, size: int, delay_ms: int) -> dict[str, Any]:
    """Trials in growing or falling steps until one holds and one does not, then between the two until they are close.

    JSON of a Cell. StageError where a rate could not be measured.
    """
    trials: list[dict[str, Any]] = []
    low, high, rate = 0.0, math.inf, pace.first_rps
    archived, bench = newest(RUNS, MODEL, "archive"), started()
    bench.server.load(archived.path(archived.facts["archive"]), MODEL, batch_size=size, max_batch_delay_ms=delay_ms, workers=1)
    try:
        while len(trials) < MOST and high > NARROW * low:
            load = Load(
                rps=rate,
                seconds=max(pace.seconds, min(LONGER * pace.seconds, ENOUGH / rate)),
                warmup_s=WARM_UP_S,
                arrivals="poisson",
                seed=1000 + len(trials),
                timeout_s=3 * bench.slo_ms / 1e3,
            )
            seen = loaded(bench, load)
            grew = growing(seen.measured) is not None
            if seen.reason is not None and not grew:
                raise StageError(f"({size}, {delay_ms}) at {rate:.1f}/s could not be measured: {seen.reason}")
            missed = seen.measured.latencies_ms > bench.slo_ms
            blocks = [[int(block.size), int(block.sum())] for block in np.array_split(missed, BLOCKS)]
            trials.append({"rps": rate, "seconds": load.seconds, "blocks": blocks, "grew": grew})
            low, high = (rate, high) if _held(trials[-1]) else (low, rate)
            rate = rate * pace.step if math.isinf(high) else rate / pace.step if low == 0 else math.sqrt(low * high)
    finally:
        bench.server.unload(MODEL)
    spent_s = sum(trial["seconds"] + WARM_UP_S for trial in trials)
    return {"rps": _limit(trials, low, high), "trials": trials, "load_s": spent_s}


def limits(cell: Cell, draw: np.random.Generator, count: int) -> NDArray[np.float64]:
    """The limit as it might have been: the blocks of each trial drawn with replacement, `count` times."""
    found = np.empty(count)
    for turn in range(count):
        again = [
            {**trial, "blocks": [trial["blocks"][index] for index in draw.integers(BLOCKS, size=BLOCKS)]}
            for trial in cell.trials
        ]
        held = [one["rps"] for one in again if _held(one)]
        missed = [one["rps"] for one in again if not _held(one)]
        found[turn] = _limit(again, max(held, default=0.0), min(missed, default=math.inf))
    return found


def _limit(trials: Sequence[dict[str, Any]], low: float, high: float) -> float:
    """Where the share of misses crosses what is allowed: on the line through the log odds of the two trials around it."""
    if low == 0 or math.isinf(high) or low >= high:
        return low
    below, above = (_odds(next(one for one in trials if one["rps"] == rate)) for rate in (low, high))
    allowed = math.log(MISSES / (1 - MISSES))
    share = min(1.0, max(0.0, (allowed - below) / (above - below))) if above > below else 0.5
    return float(low * (high / low) ** share)


def _held(trial: dict[str, Any]) -> bool:
    count, missed = np.sum(trial["blocks"], axis=0)
    return bool(missed / count <= MISSES) and not trial["grew"]


def _odds(trial: dict[str, Any]) -> float:
    count, missed = np.sum(trial["blocks"], axis=0)
    return math.log((missed + 0.5) / (count - missed + 0.5))
