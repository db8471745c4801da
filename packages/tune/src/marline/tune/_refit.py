"""Corrects what the twin believes by what trials have shown, where the two differ.

First how long batches take: beside a sender and a server that share its cores a worker takes longer than alone, and longer
still in the tail; its own log says by how much. Then, where that does not explain the latencies, the overheads around a batch.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from marline.loadtest import percentile
from marline.tune._batches import Batch
from marline.tune._service import Point, Service
from marline.tune._setting import Setting
from marline.tune._twin import play

AGREES = 0.15  # of the tail: what a prediction may be off
BEYOND = 5  # requests at least beyond the percentile that is compared: the p99 of 97 requests is one request's luck
LEAST = 30  # batches of trials that say how long one takes under load
EACH, ROWS = 3, 200  # batches behind each row of what they say, and rows at most
PRIOR = 0.001  # the cost of an overhead that is halved or doubled; as much as a miss of one figure by 3 %
SMALLEST_MS = 0.01
LOST_MS = 1e6  # what a request that is predicted to be lost counts, so that losing everything explains nothing
FACTORS = (0.5, 1.0, 2.0, 4.0)  # of each overhead: where the search begins, as there are several valleys
EVALUATIONS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One trial: when its requests were due (s, ascending), their latencies (ms, inf: lost), and its batches, if known.

    The first `warm` requests are those of the warm-up, which have no latency here: what they left, the others waited for.
    """

    setting: Setting
    arrivals_s: NDArray[np.float64]
    latencies_ms: NDArray[np.float64]
    batches: Sequence[Batch] = ()
    warm: int = 0

    @property
    def rps(self) -> float:
        """The rate of those that were judged."""
        return float((self.latencies_ms.size - 1) / np.ptp(self.arrivals_s[self.warm :]))

    def played(self, service: Service) -> tuple[NDArray[np.float64], float]:
        """What the twin says of the same: the latencies of those that were judged, in ms, and the mean batch of all."""
        played = play(service, self.setting, self.arrivals_s)
        return played.latencies_ms[self.warm :], played.mean_batch


def refit(service: Service, seen: Sequence[Seen]) -> Service:
    """The service that explains the trials best, or as it was where it explains every tail within 15 %.

    Each trial is played again with its own arrivals. What is compared are p50, the tail and the mean batch; an overhead that
    the trials do not determine stays where it was. Deterministic.
    """
    if all(agrees(service, one) for one in seen):
        return service
    service = under_load(service, seen)
    if all(agrees(service, one) for one in seen):
        return service
    before = np.array([max(SMALLEST_MS, ms) for ms in (service.batch_ms, service.request_ms, service.http_ms)])

    def with_factors(logs: NDArray[np.float64]) -> Service:
        batch_ms, request_ms, http_ms = (float(ms) for ms in before * np.exp(logs))
        return replace(service, batch_ms=batch_ms, request_ms=request_ms, http_ms=http_ms)

    def cost(logs: NDArray[np.float64]) -> float:
        changed = with_factors(logs)
        misses = [miss**2 for one in seen for miss in _misses(changed, one)]
        return sum(misses) + PRIOR * float(np.square(logs / math.log(2)).sum())

    starts = [np.log(factors) for factors in product(FACTORS, repeat=3)]
    begin = min(starts, key=cost)
    simplex = begin + np.vstack([np.zeros(3), 0.3 * np.eye(3)])
    found = minimize(cost, begin, method="Nelder-Mead", options={"initial_simplex": simplex, "maxfev": EVALUATIONS})
    return with_factors(found.x) if found.fun < cost(np.zeros(3)) else service


def tail(samples: int) -> float:
    """The highest percentile, up to the 99th, beyond which at least five of so many requests lie."""
    return max(50.0, min(99.0, 100 * (1 - BEYOND / samples)))


def agrees(service: Service, one: Seen) -> bool:
    """Whether the tail of a trial is within 15 % of what the twin says of its arrivals; never where that many were lost."""
    p = tail(one.latencies_ms.size)
    measured = percentile(one.latencies_ms, p)
    if math.isinf(measured):
        return False
    return abs(percentile(one.played(service)[0], p) / measured - 1) <= AGREES


def under_load(service: Service, seen: Sequence[Seen]) -> Service:
    """The service with batches as long as they were in the trials: of every size they vary as those of the log do.

    Samples of a curve are too few to show that one batch of fifty stalls; a log of hundreds does. Workers that share an
    accelerator log their waiting for it too, so trials of several say nothing of t(b) there.
    """
    table_ms = service.table_ms()
    typical_ms = np.median(table_ms.sum(axis=2), axis=1)
    factors = [
        batch.total_ms / typical_ms[batch.size]
        for one in seen
        if one.setting.workers == 1 or not service.shared
        for batch in one.batches
        if 1 <= batch.size <= service.largest
    ]
    if len(factors) < LEAST:
        return service
    rows = min(ROWS, len(factors) // EACH)
    quantiles = (np.arange(rows) + 0.5) / rows
    loaded = np.quantile(factors, quantiles)[:, None]
    points = []
    for point in service.points:
        alone = table_ms[point.batch, (quantiles * table_ms.shape[1]).astype(np.int64)]
        stages_ms = alone / alone.sum(axis=1, keepdims=True) * typical_ms[point.batch] * loaded
        points.append(Point.of(point.batch, stages_ms, reported=point.inference_ms is not None))
    return replace(service, points=tuple(points))


def _misses(service: Service, one: Seen) -> Iterator[float]:
    """Logarithms of predicted over measured; what was lost in a trial cannot be compared."""
    latencies_ms, mean_batch = one.played(service)
    for p in (50, tail(one.latencies_ms.size)):
        measured, told = percentile(one.latencies_ms, p), percentile(latencies_ms, p)
        if math.isfinite(measured):
            yield math.log(min(told, LOST_MS) / measured)
    sizes = [batch.size for batch in one.batches if batch.size]
    if sizes:
        yield math.log(mean_batch / float(np.mean(sizes)))
