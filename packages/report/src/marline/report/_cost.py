"""What a million requests cost on one replica."""

from typing import Any

from marline.report._raw import Seen

MILLION, HOUR_S = 1e6, 3600


def cost(price_per_hour: float | None, currency: str, headroom: float, seen: Seen | None) -> dict[str, Any]:
    """Costs where a price and a rate are known, planned (with the headroom kept) and at 100 % utilisation.

    cost per million = price per hour / (3600 rate) 10^6, per million within the SLO with goodput in place of the rate
    (measurement.md, section 11). With headroom kept the share within the SLO is taken to be that at the full rate, or better.
    """
    why = None if price_per_hour is not None else "report.price_per_hour is not set"
    if seen is None:
        why = "no rate was within the SLO"
    rows = []
    if seen is not None and price_per_hour is not None:
        rate, goodput = float(seen.trial["offered_rps"]), seen.facts["goodput_rps"]
        rows = [
            {
                "utilisation": round(utilisation, 6),
                "rps": round(utilisation * rate, 6),
                "per_million": per_million(price_per_hour, utilisation * rate),
                "per_million_within_slo": per_million(price_per_hour, utilisation * goodput),
            }
            for utilisation in (1 - headroom, 1.0)
        ]
    return {"price_per_hour": price_per_hour, "currency": currency, "reason": why, "rows": rows}


def per_million(price_per_hour: float, rate_rps: float) -> float:
    """Of a million requests at a rate, on something that costs so much an hour."""
    return round(price_per_hour / (HOUR_S * rate_rps) * MILLION, 6)
