"""Says in a few words what keeps a configuration from carrying more, from figures that were measured or predicted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from marline.tune._service import Point
from marline.tune._setting import Setting

Kind = Literal["delay-bound", "compute-bound", "CPU-stage-bound", "queue-bound", "client-bound"]
BUSY = 0.8  # of its time: a worker (or a shared accelerator) with less to spare is what requests wait for
FULL = 0.95  # of B, on average: batches that leave because they are full, not because of the delay


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one configuration did at one rate, or is predicted to do; rate 0 where none is within the objective."""

    rps: float
    tail_ms: float  # the latency at the objective's percentile, inf where more requests were lost
    mean_batch: float | None  # None where the handler does not report its batches
    samples: int = 0
    refused: int = 0  # because the queue was full
    late: str | None = None  # why this was no measurement of the server


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What bounds a configuration, and the figures that say so in words."""

    kind: Kind
    words: str


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch of some mean size in the worker: ms of inference, and of what a processor does around it; None if unknown."""

    size: float
    inference_ms: float
    around_ms: float
    split: bool  # whether the handler tells its stages apart

    @property
    def total_ms(self) -> float:
        return self.inference_ms + self.around_ms


def diagnose(
    points: Sequence[Point],
    setting: Setting,
    seen: Figures,
    slo_ms: float,
    *,
    batch_ms: float = 0.0,
    request_ms: float = 0.0,
    shared: bool = False,
) -> Diagnosis:
    """What bounds `setting` at this load; the first rule that holds decides.

    1. The measurement is invalid: client-bound, and nothing is known of the server.
    2. No rate is within the objective: whatever a request that arrives alone waits for most, the delay or the worker; where
       alone it is in time, the worker, as others wait for the batch before theirs too.
    3. The workers (or the accelerator they share) are busy for 80 % of the time or more: compute-bound where inference is
       at least half of a batch's time in the worker, else CPU-stage-bound.
    4. Requests found the queue full: queue-bound, as workers had time.
    5. The largest part of the tail: the delay (only where batches leave before they are full), the worker as in 3, or what
       is left, the wait behind other batches, which is queue-bound.

    `points` are the service curve; `batch_ms` and `request_ms` are what the server adds per batch and per request of it,
    counted as processor time. A batch of the mean size takes what the line between the measured sizes says.
    """
    if seen.late is not None:
        return Diagnosis("client-bound", f"no trial was valid, so nothing is known of the server: {seen.late}")
    overhead = batch_ms, request_ms
    if seen.rps <= 0:
        return _never_in_time(points, setting, slo_ms, overhead)
    size = seen.mean_batch if seen.mean_batch is not None else _reckoned(points, setting, seen.rps, overhead)
    batch = _batch(points, size, overhead)
    each_ms, together_ms = batch.total_ms / setting.workers, batch.inference_ms if shared else 0.0
    busy = seen.rps / 1e3 / size * max(each_ms, together_ms)
    who = "accelerator" if together_ms > each_ms else "worker" + "s" * (setting.workers > 1)
    achieved = f"batches of {size:.1f} of {setting.batch_size}{' (reckoned)' * (seen.mean_batch is None)}"
    told = f"{achieved}, {who} {100 * min(busy, 1.0):.0f} % busy"
    full = f"{seen.refused:,} of {seen.samples:,} requests found the queue full"
    if busy >= BUSY:
        return _worker_bound(batch, f"{told}; {full}" if seen.refused else told)
    if seen.refused:
        return Diagnosis("queue-bound", f"{full}; {told}: a longer queue, or arrivals without bursts")
    return _largest(setting, batch, seen.tail_ms, told)


def _largest(setting: Setting, batch: _Batch, tail_ms: float, told: str) -> Diagnosis:
    """The largest part of the tail, where workers have time and nobody was refused."""
    delayed = setting.batch_size > 1 and batch.size < FULL * setting.batch_size
    delay_ms = float(setting.max_batch_delay_ms) if delayed else 0.0
    waited_ms = tail_ms - delay_ms - batch.total_ms
    if delay_ms >= max(batch.total_ms, waited_ms):
        achieved, _, busy = told.partition(", ")
        left = f"{achieved} left after the {delay_ms:g} ms delay and take {_ms(batch.total_ms)}"
        return Diagnosis("delay-bound", f"{left}; {busy}: a shorter delay")
    if waited_ms > batch.total_ms:
        tail = f"{_ms(waited_ms)} of {_ms(tail_ms)} are" if math.isfinite(waited_ms) else "requests were lost, most time is"
        return Diagnosis("queue-bound", f"{tail} spent behind others in bursts; {told}")
    return _worker_bound(batch, told)


def _never_in_time(points: Sequence[Point], setting: Setting, slo_ms: float, overhead: tuple[float, float]) -> Diagnosis:
    """No rate is within the objective: because of a request alone, or of one that just misses a batch."""
    alone = _batch(points, 1.0, overhead)
    delay_ms = float(setting.max_batch_delay_ms) if setting.batch_size > 1 else 0.0
    if alone.total_ms + delay_ms <= slo_ms:
        full = _batch(points, float(setting.batch_size), overhead)
        missed = f"who just misses a batch of {setting.batch_size} waits {_ms(full.total_ms)} for it and as long for the next"
        return _worker_bound(full, f"{missed}, {slo_ms:g} ms are allowed")
    lone = f"a request alone waits {delay_ms:g} ms for others and takes {_ms(alone.total_ms)}, {slo_ms:g} ms are allowed"
    if delay_ms >= alone.total_ms:
        return Diagnosis("delay-bound", f"{lone}: a shorter delay")
    return _worker_bound(alone, lone)


def _worker_bound(batch: _Batch, found: str) -> Diagnosis:
    if not batch.split:
        return Diagnosis("compute-bound", f"{found}; a batch takes {_ms(batch.total_ms)}, its stages are not reported")
    share = f"{found}; {_ms(batch.inference_ms)} of the {_ms(batch.total_ms)} of a batch are inference"
    if batch.inference_ms >= batch.around_ms:
        return Diagnosis("compute-bound", f"{share}: a faster model, or replicas")
    return Diagnosis("CPU-stage-bound", f"{share}, the rest is work of the processor around it: cheaper stages, or workers")


def _batch(points: Sequence[Point], size: float, overhead: tuple[float, float]) -> _Batch:
    sizes = [point.batch for point in points]
    whole_ms = float(np.interp(size, sizes, [point.p50_ms for point in points]))
    split = all(point.pre_ms is not None and point.post_ms is not None for point in points)
    stages_ms = [(point.pre_ms or 0.0) + (point.post_ms or 0.0) for point in points]
    handled_ms = min(whole_ms, float(np.interp(size, sizes, stages_ms)))  # medians of stages need not add up to that of all
    return _Batch(size, whole_ms - handled_ms, handled_ms + overhead[0] + overhead[1] * size, split)


def _reckoned(points: Sequence[Point], setting: Setting, rps: float, overhead: tuple[float, float]) -> float:
    """The mean batch where nobody reports it: for each worker rate times (t(b) + D), from 1 to B."""
    size = 1.0
    for _ in range(50):  # towards the fixed point from below
        gathers_ms = _batch(points, size, overhead).total_ms + setting.max_batch_delay_ms
        size = min(float(setting.batch_size), max(1.0, rps / 1e3 / setting.workers * gathers_ms))
    return size


def _ms(value: float) -> str:
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
