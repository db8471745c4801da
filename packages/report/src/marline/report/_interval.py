"""How sure the figures of the verdict are: of a percentile by resampling blocks, of a gain by the brackets of both rates."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marline.loadtest import percentile

DRAWS, SEED = 1000, 0
CONFIDENCE = 0.95
BLOCK_LATENCIES, LEAST_BLOCKS, MOST_BLOCKS = 20, 10, 60  # as for verdicts: measurement.md, section 5


def interval(latencies_ms: NDArray[np.float64], p: float, seconds: float) -> dict[str, Any] | None:
    """Between which bounds a percentile lies with 95 % confidence; a bound is None where it is infinite.

    The bootstrap over blocks (Carlstein, Annals of Statistics 14, 1986): the requests, in the order they were due, are cut into
    blocks of at least 20 times the p99 latency, as neighbours are late together; so many blocks are drawn with replacement,
    1,000 times, and the percentiles of the draws (nearest rank) give the bounds. None where fewer than 10 blocks fit.
    """
    slow_s = percentile(latencies_ms, 99) / 1e3
    blocks = min(MOST_BLOCKS, latencies_ms.size // 2, int(seconds / (BLOCK_LATENCIES * slow_s))) if math.isfinite(slow_s) else 0
    if blocks < LEAST_BLOCKS:
        return None
    order = np.argsort(latencies_ms, kind="stable")
    ordered, block_of = latencies_ms[order], (np.arange(latencies_ms.size) * blocks // latencies_ms.size)[order]
    draws = np.random.default_rng(SEED)
    found = np.empty(DRAWS)
    for draw in range(DRAWS):
        times = np.bincount(draws.integers(blocks, size=blocks), minlength=blocks)
        below = np.cumsum(times[block_of])  # how many of the draw are no later than each request
        found[draw] = ordered[np.searchsorted(below, math.ceil(p / 100 * below[-1]))]
    low, high = (percentile(found, 100 * share) for share in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    bounds = {"low_ms": low, "high_ms": high}
    finite = {name: round(value, 3) if math.isfinite(value) else None for name, value in bounds.items()}
    return finite | {"confidence": CONFIDENCE, "blocks": blocks, "draws": DRAWS, "seed": SEED}


def gain_bounds(chosen: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, float | None]:
    """Between which bounds the ratio of both highest rates lies, as each lies somewhere in its bracket (see `knee`).

    No interval of confidence: what the trials exclude. A bound is None where a bracket is open at that end.
    """

    def ratio(over: float | None, under: float | None) -> float | None:
        return round(over / under, 4) if over and under else None

    return {
        "low": ratio(chosen["held_rps"], default["missed_rps"]),
        "high": ratio(chosen["missed_rps"], default["held_rps"]),
    }
