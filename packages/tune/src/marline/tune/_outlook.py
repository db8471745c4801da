"""What the twin says beyond the choice, for the report: where time goes, other loads and objectives, more workers."""

import math
from typing import Any

from marline.tune._predict import Forecaster
from marline.tune._setting import Setting
from marline.tune._twin import at_rate, predict

LOADS, OBJECTIVES = (0.5, 1.0, 1.5), (0.8, 1.0, 1.2)  # times what was chosen
WORKERS = (1, 2, 3, 4)


def outlook(forecast: Forecaster, chosen: Setting, rps: float) -> dict[str, Any] | None:
    """Simulated throughout; None where no rate was found.

    `load`: the chosen setting at multiples of its rate, `shares` being where its mean request spends its time. `objective`: its
    highest rate, and the best setting's, under multiples of the objective. `workers`: its highest rate with so many of them;
    nothing where each computes on cores of its own, as the service curve does not say how they disturb each other.
    """
    if not rps:
        return None
    service, percentile, gaps = forecast.service, forecast.percentile, forecast.gaps
    played = [(factor, at_rate(service, chosen, factor * rps, percentile, gaps=gaps)) for factor in LOADS]
    limits = {}
    for factor in OBJECTIVES:
        found = predict(service, [chosen, *forecast.settings], factor * forecast.slo_ms, percentile, gaps=gaps)
        limits[factor] = found[0], max(found, key=lambda one: one.rps)
    more = [Setting(chosen.batch_size, chosen.max_batch_delay_ms, count) for count in WORKERS] if service.shared else []
    return {
        "load": [
            {
                "factor": factor,
                "rps": round(told.rps, 2),
                **{key: _finite(getattr(told, key)) for key in ("p50_ms", "p95_ms", "p99_ms", "tail_ms")},
                "mean_batch": round(told.mean_batch, 2),
                "shares": {name: round(share, 4) for name, share in told.shares.items()},
            }
            for factor, told in played
        ],
        "objective": [
            {
                "factor": factor,
                "rps": round(own.rps, 2),
                "best_rps": round(best.rps, 2),
                "best_batch_size": best.setting.batch_size,
                "best_max_batch_delay_ms": best.setting.max_batch_delay_ms,
                "best_workers": best.setting.workers,
            }
            for factor, (own, best) in limits.items()
        ],
        "workers": [
            {"workers": told.setting.workers, "rps": round(told.rps, 2)}
            for told in predict(service, more, forecast.slo_ms, percentile, gaps=gaps)
        ],
    }


def _finite(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
