"""How a rate grows with workers: the Universal Scalability Law, fitted to what is known of several numbers of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import curve_fit

from marline.report._raw import Seen

FEWEST = 3  # numbers of workers: the law has three parameters
BEYOND = 2  # times the most workers that are known: how far the law is believed


def usl(workers: Any, rate: float, contention: float, coherency: float) -> Any:
    """X(N) = rate N / (1 + contention (N - 1) + coherency N (N - 1)), Gunther, Guerrilla Capacity Planning, 2007."""
    return rate * workers / (1 + contention * (workers - 1) + coherency * workers * (workers - 1))


def fit(points: Mapping[int, float]) -> dict[str, Any]:
    """The law fitted to (workers, requests/s) by least squares, no parameter below 0.

    Its peak is at N* = sqrt((1 - contention) / coherency); None where there is none, or beyond twice the most workers known.
    """
    counts, rates = np.array(sorted(points), np.float64), np.array([points[count] for count in sorted(points)], np.float64)
    first = rates[0] / counts[0], 0.05, 0.001
    (rate, contention, coherency), _ = curve_fit(usl, counts, rates, p0=first, bounds=(0, np.inf), x_scale=first, xtol=1e-12)
    left = float(np.sum((rates - usl(counts, rate, contention, coherency)) ** 2))
    spread = float(np.sum((rates - rates.mean()) ** 2))
    peak = math.sqrt((1 - contention) / coherency) if coherency > 0 and contention < 1 else math.inf
    limit = int(BEYOND * counts[-1])
    return {
        "rate_rps": round(float(rate), 4),
        "contention": round(float(contention), 8),
        "coherency": round(float(coherency), 8),
        "r2": round(1 - left / spread, 6) if spread else None,
        "peak_workers": round(peak, 2) if peak <= limit else None,
        "limit_workers": limit,
    }


def scaling(report: Mapping[str, Any], seen: Sequence[Seen]) -> dict[str, Any]:
    """Rates by number of workers and the law through them: measured where three numbers were, else as the twin has it."""
    measured = _best((one.trial["workers"], one.trial["offered_rps"]) for one in seen if one.facts["within"])
    simulated = _best((told["workers"], told["rps"]) for told in (report.get("outlook") or {}).get("workers", ()))
    predicted = _best((told["workers"], told["rps"]) for told in report["predictions"])
    known = [("measured", measured), ("simulated", simulated), ("simulated", predicted)]
    origin, points = next(((name, told) for name, told in known if len(told) >= FEWEST), ("measured", measured))
    enough = len(points) >= FEWEST
    counted = ", ".join(map(str, sorted(measured))) or "none"
    why = None if enough else f"the numbers of workers whose rate is known: {counted}; the law has three parameters"
    return {
        "origin": origin,
        "points": [{"workers": count, "rps": rate} for count, rate in sorted(points.items())],
        "measured_workers": sorted(measured),
        "fit": fit(points) if enough else None,
        "reason": why,
    }


def _best(told: Any) -> dict[int, float]:
    """The highest rate of each number of workers; none at all counts as none known."""
    found: dict[int, float] = {}
    for workers, rate in told:
        if rate:
            found[workers] = max(rate, found.get(workers, 0.0))
    return found
