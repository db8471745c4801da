"""What latencies prove: nearest-rank percentiles, and whether an objective is met, missed or undecided.

Requests that were lost count as infinitely late, so they move percentiles and verdicts as a slow answer would.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, bdtrc  # the binomial distribution, without the 0.5 s that scipy.stats takes to import


def percentile(latencies_ms: ArrayLike, p: float) -> float:
    """The smallest latency that at least p percent of all do not exceed; ValueError where there are none.

    Equals numpy's `inverted_cdf`, which however makes NaN of infinities beside finite values.
    """
    ordered = np.sort(np.asarray(latencies_ms, dtype=np.float64))
    if not ordered.size:
        raise ValueError("there are no latencies to take a percentile of")
    return float(ordered[max(0, math.ceil(ordered.size * (p / 100) - 1))])


def slo_met(latencies_ms: ArrayLike, slo_ms: float, percentile: float, confidence: float) -> bool | None:
    """Whether the percentile is within the objective, as sure as asked; None when the samples prove neither.

    With k of n requests over the objective: yes where P(Binomial(n, 1-p) <= k) <= 1-c, no where
    P(Binomial(n, 1-p) >= k) <= 1-c: the exact test of a proportion (Clopper and Pearson, Biometrika 26, 1934).
    """
    latencies = np.asarray(latencies_ms, dtype=np.float64)
    over, share = int(np.count_nonzero(latencies > slo_ms)), (100 - percentile) / 100
    if bdtr(over, latencies.size, share) <= 1 - confidence:
        return True
    if bdtrc(over - 1, latencies.size, share) <= 1 - confidence:
        return False
    return None
