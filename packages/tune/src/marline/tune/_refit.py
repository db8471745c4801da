"""Corrects what the twin believes of the overheads by what trials have shown, where the two differ."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from marline.loadtest import percentile
from marline.tune._batches import Batch
from marline.tune._service import Service
from marline.tune._setting import Setting
from marline.tune._twin import play

AGREES = 0.15  # of p99: what a prediction may be off
PRIOR = 0.001  # the cost of an overhead that is halved or doubled; as much as a miss of one figure by 3 %
SMALLEST_MS = 0.01
FACTORS = (0.5, 1.0, 2.0, 4.0)  # of each overhead: where the search begins, as there are several valleys
EVALUATIONS = 200


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One trial: when its requests were due (s, ascending), their latencies (ms, inf: lost), and its batches, if known."""

    setting: Setting
    arrivals_s: NDArray[np.float64]
    latencies_ms: NDArray[np.float64]
    batches: Sequence[Batch] = ()


def refit(service: Service, seen: Sequence[Seen]) -> Service:
    """The service with the overheads that explain the trials best, or as it was where it explains every p99 within 15 %.

    Each trial is played again with its own arrivals. What is compared are p50, p99 and the mean batch; an overhead that the
    trials do not determine stays where it was. Deterministic.
    """
    if all(abs(told / measured - 1) <= AGREES for one in seen for told, measured in [_p99s(service, one)]):
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


def _p99s(service: Service, one: Seen) -> tuple[float, float]:
    """Predicted and measured; 0 and 1, which never agree, where the trial lost so many that it has none."""
    measured = percentile(one.latencies_ms, 99)
    if math.isinf(measured):
        return 0.0, 1.0
    return percentile(play(service, one.setting, one.arrivals_s).latencies_ms, 99), measured


def _misses(service: Service, one: Seen) -> Iterator[float]:
    """Logarithms of predicted over measured; what was lost in a trial cannot be compared."""
    played = play(service, one.setting, one.arrivals_s)
    for p in (50, 99):
        measured, told = percentile(one.latencies_ms, p), percentile(played.latencies_ms, p)
        if math.isfinite(measured) and math.isfinite(told):
            yield math.log(told / measured)
    sizes = [batch.size for batch in one.batches if batch.size]
    if sizes:
        yield math.log(played.mean_batch / float(np.mean(sizes)))
