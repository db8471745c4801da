"""What the raw rows of every trial say beyond the percentiles that tune kept; the rows decide, tune's rounding does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marline.core import Manifest
from marline.loadtest import Measurement, percentile, read_measurement

OK = 200
KEYS = ("batch_size", "max_batch_delay_ms", "workers")
Trial = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One trial as tune tells it, its rows, and what follows from them."""

    trial: Trial
    rows: Measurement
    facts: Mapping[str, Any]


def look(tuned: Manifest, trials: Sequence[Trial], slo: Mapping[str, Any]) -> list[Seen]:
    """Every trial with its rows, in their order."""
    found = []
    for place, trial in enumerate(trials, 1):
        rows = read_measurement(tuned.path(trial["samples_file"]))
        sha256 = tuned.outputs[trial["samples_file"]].sha256
        found.append(Seen(trial, rows, {"trial": place, "sha256": sha256} | _facts(trial, rows, slo)))
    return found


def of(seen: Sequence[Seen], config: Mapping[str, Any]) -> list[Seen]:
    """The valid trials of one configuration, the lowest rate first."""
    ours = [one for one in seen if one.trial["valid"] and all(one.trial[key] == config[key] for key in KEYS)]
    return sorted(ours, key=lambda one: float(one.trial["offered_rps"]))


def at(seen: Sequence[Seen], config: Mapping[str, Any]) -> Seen | None:
    """The trial that a configuration's figures are from, the last of several; None where no rate held."""
    return next((one for one in reversed(of(seen, config)) if config["rps"] and one.trial["rps"] == config["rps"]), None)


def _facts(trial: Trial, rows: Measurement, slo: Mapping[str, Any]) -> dict[str, Any]:
    """Goodput is 200s within the SLO, counted from when they were due, per measured second; means are over all requests.

    `power` is X / R, throughput over mean latency (Kleinrock, 1979): 0 where requests were lost, as their latency has no end.
    """
    latencies = rows.latencies_ms
    mean_ms, tail_ms = float(latencies.mean()), percentile(latencies, slo["percentile"])
    lost = not np.isfinite(mean_ms)
    return {
        "goodput_rps": round(float(np.count_nonzero(latencies <= slo["ms"])) / rows.seconds, 3),
        "answered_rps": round(rows.answered_rps, 3),
        "mean_ms": None if lost else round(mean_ms, 3),
        "tail_ms": round(tail_ms, 3) if np.isfinite(tail_ms) else None,
        "within": bool(trial["valid"] and tail_ms <= slo["ms"] and not trial.get("limit")),
        "power": 0.0 if lost else round(rows.answered_rps / (mean_ms / 1e3), 3),
        "sender_cpu": round(rows.generator_cpu, 4),
        "in_flight": round(rows.mean_in_flight, 3),
        "in_flight_by_law": round(rows.little_in_flight, 3),
        "warmup_requests": rows.total - latencies.size,
    }
