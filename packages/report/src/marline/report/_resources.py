"""What the chosen rate takes: memory, processor, places in the queue, connections, power."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marline.report._raw import KEYS, Seen


def resources(report: Mapping[str, Any], seen: Seen | None) -> dict[str, Any] | None:
    """The resources of one replica at the chosen rate; None where no rate held, a value None where it was not recorded.

    Concurrency by Little's law, L = lambda R (Operations Research 9, 1961), at the measured mean latency: what is in flight on
    average, at the rate and with the headroom kept. `queue_bound` is the longest queue that is still in time,
    Q <= (SLO - t(B)) B / t(B) for each worker; `connections` twice what is in flight where every answer takes as long as the
    SLO allows (measurement.md, sections 3 and 11).
    """
    if seen is None:
        return None
    chosen, slo_s, trial, facts = report["chosen"], report["slo"]["ms"] / 1e3, seen.trial, seen.facts
    rate = float(trial["offered_rps"])
    batch_s = _batch_ms(report["curve"], chosen["batch_size"]) / 1e3
    waits = max(0.0, (slo_s - batch_s) * chosen["batch_size"] / batch_s) * chosen["workers"]
    mean_s = None if facts["mean_ms"] is None else facts["mean_ms"] / 1e3
    power_w = _power_w(report.get("gpu", ()), facts["trial"])
    return {
        "rps": rate,
        "memory_mb": trial.get("memory_mb"),
        "machine_memory_mb": report["machine"]["memory_gib"] * 1024,
        "sender_cpu": facts["sender_cpu"],
        "server_cpu": None,
        "in_flight": facts["in_flight"],
        "concurrency": None if mean_s is None else round(rate * mean_s, 3),
        "planned_concurrency": None if mean_s is None else round((1 - report["headroom"]) * rate * mean_s, 3),
        "job_queue_size": next((told["now"] for told in report["values"] if told["key"] == "jobQueueSize"), None),
        "queue_bound": math.floor(waits),
        "connections": math.ceil(2 * rate * slo_s),
        "bound_by": next((one["kind"] for one in report["diagnoses"] if all(one[key] == chosen[key] for key in KEYS)), None),
        "power_w": power_w,
        "joules_per_request": None if power_w is None else round(power_w / facts["answered_rps"], 4),
    }


def _batch_ms(curve: Sequence[Mapping[str, Any]], size: int) -> float:
    """t(B), on the line between the measured sizes."""
    return float(np.interp(size, [point["batch"] for point in curve], [point["p50_ms"] for point in curve]))


def _power_w(gpu: Sequence[Mapping[str, Any]], place: int) -> float | None:
    """The mean power of all GPUs in one trial; None where one of them, or none at all, says."""
    told = [one["power_w"] for one in gpu if one["phase"] == f"trial {place}"]
    return round(sum(told), 3) if told and None not in told else None
