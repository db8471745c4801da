"""What latencies prove: nearest-rank percentiles, and whether an objective is met, missed or undecided.

Requests that were lost count as infinitely late, so they move percentiles and verdicts as a slow answer would.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr, bdtrc, betaincinv, stdtrit  # without the 0.5 s that scipy.stats takes to import

OVER = (0, 1, 2, 3, 5, 10, 20, 50)  # requests over the objective, at whose sample sizes a series may be looked at
LEAST_BLOCKS, BLOCK_LATENCIES = 10, 20  # and each block as long as so many latencies (p99): longer than a queue remembers


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an objective is met, and the share of requests over it: what was seen, and between which bounds it lies.

    Each bound is as sure as was asked. They are those of independent samples (Clopper and Pearson) or those of block means,
    whichever is wider; `blocks` is 0 where the series is too short for blocks, and only the former could be had.
    """

    met: bool | None
    over: int
    samples: int
    low: float
    high: float
    blocks: int


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


def verdict(latencies_ms: ArrayLike, slo_ms: float, percentile_: float, confidence: float, seconds: float) -> Verdict:
    """The same for the latencies of a load test, in the order they were due in so many seconds.

    Neighbours in a queue are late together, so that n samples prove less than n independent ones. Means over long blocks are
    nearly independent: met and missed need both tests to say so.
    """
    latencies = np.asarray(latencies_ms, dtype=np.float64)
    missed, size, share = latencies > slo_ms, latencies.size, (100 - percentile_) / 100
    over, met = int(missed.sum()), slo_met(latencies, slo_ms, percentile_, confidence)
    high = float(betaincinv(over + 1, size - over, confidence)) if over < size else 1.0
    low = float(betaincinv(over, size - over + 1, 1 - confidence)) if over else 0.0
    blocks = _blocks(latencies, seconds)
    if blocks:
        means = np.array([block.mean() for block in np.array_split(missed, blocks)])
        reach = float(stdtrit(blocks - 1, confidence)) * float(means.std(ddof=1)) / math.sqrt(blocks)
        low, high = max(0.0, min(low, means.mean() - reach)), min(1.0, max(high, means.mean() + reach))
        met = True if met and high <= share else False if met is False and low >= share else None
    return Verdict(met, over, size, low, high, blocks)


def samples_needed(percentile: float, confidence: float, over: int) -> int:
    """The smallest number of requests of which `over` may exceed an objective that is still proven met."""
    share, low, high = (100 - percentile) / 100, over, over + 1
    while bdtr(over, high, share) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bdtr(over, middle, share) <= 1 - confidence else (middle, high)
    return high


def early_verdict(latencies_ms: ArrayLike, slo_ms: float, percentile: float, confidence: float) -> tuple[bool | None, int]:
    """What a series, in its order, proves first, and after how many requests; (None, all of them) where it proves nothing.

    It is looked at when it is as long as `samples_needed` says for 0, 1, 2, 3, 5, 10, 20 and 50 requests over the objective,
    and at no other time: who looks after every request sees by chance, sooner or later, what he hoped for.
    """
    latencies = np.asarray(latencies_ms, dtype=np.float64)
    for size in (samples_needed(percentile, confidence, over) for over in OVER):
        if size > latencies.size:
            break
        met = slo_met(latencies[:size], slo_ms, percentile, confidence)
        if met is not None:
            return met, size
    return None, latencies.size


def _blocks(latencies: np.ndarray[tuple[int], np.dtype[np.float64]], seconds: float) -> int:
    """Into how many blocks a series may be cut: ten where they are long enough, and none else."""
    slow_s = percentile(latencies, 99) / 1e3 if latencies.size else math.inf
    long_enough = seconds / LEAST_BLOCKS >= BLOCK_LATENCIES * slow_s and latencies.size >= 2 * LEAST_BLOCKS
    return LEAST_BLOCKS if long_enough else 0
