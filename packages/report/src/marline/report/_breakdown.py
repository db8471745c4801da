"""Where a mean request at the chosen rate spends its time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from marline.report._raw import OK, Seen

STAGES = (("preprocess", "pre_ms"), ("inference", "inference_ms"), ("postprocess", "post_ms"))
WITHIN = {  # what the wait consists of, by the names of the twin's stages
    "queue": ("queue",),
    "batch wait": ("batch",),
    "accelerator busy": ("device",),  # under load the handler counts it as inference
    "server around the worker": ("overhead", "http"),
}
Parts = list[dict[str, Any]]


def breakdown(
    seen: Seen | None, curve: Sequence[Mapping[str, Any]], outlook: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Means over the answered requests of the trial at the chosen rate, ms; None where no rate held.

    `lag` and `total` are measured by the sender, the stages by the handler under that load (a request is in its batch from
    beginning to end, so batches count by their size) or, where tune did not keep that, taken from the service curve at the mean
    batch. The rest, total less these, is what a request waits: that is measured too, but its parts are not visible from outside
    the server. `within` splits it as the twin's own split does, and is simulated; empty where there is no twin's word.
    """
    if seen is None:
        return None
    answered = seen.rows.status == OK
    total_ms, lag_ms = (float(np.mean(ms[answered])) for ms in (seen.rows.latencies_ms, seen.rows.lag_ms))
    stages, origin = _stages(seen, curve)
    rest_ms = total_ms - lag_ms - sum(stage["ms"] for stage in stages)
    parts = [
        {"part": "dispatch lag", "ms": round(lag_ms, 3), "origin": "measured"},
        {"part": "wait", "ms": round(rest_ms, 3), "origin": "total less the other parts"},
        *({**stage, "origin": origin} for stage in stages),
    ]
    return {
        "rps": seen.trial["offered_rps"],
        "requests": int(answered.sum()),
        "total_ms": round(total_ms, 3),
        "max_batch_delay_ms": seen.trial["max_batch_delay_ms"],
        "parts": parts,
        "within": _within(rest_ms, outlook, {"accelerator busy"} if origin == "measured" else set()),
    }


def _stages(seen: Seen, curve: Sequence[Mapping[str, Any]]) -> tuple[Parts, str]:
    told, batch = seen.trial.get("stages_ms"), seen.trial["mean_batch"]
    if told is not None:
        return [{"part": name, "ms": round(told[key], 3)} for name, key in STAGES], "measured"
    if batch is None or any(point["inference_ms"] is None for point in curve):
        return [], "not known"
    sizes = [point["batch"] for point in curve]
    return [
        {"part": name, "ms": round(float(np.interp(batch, sizes, [point[key] for point in curve])), 3)} for name, key in STAGES
    ], "service curve"


def _within(rest_ms: float, outlook: Mapping[str, Any] | None, elsewhere: set[str]) -> Parts:
    told: Mapping[str, float] = next((one["shares"] for one in (outlook or {}).get("load", ()) if one["factor"] == 1), {})
    shares = {name: sum(told.get(key, 0.0) for key in keys) for name, keys in WITHIN.items() if name not in elsewhere}
    whole = sum(shares.values())
    if whole <= 0 or rest_ms <= 0:
        return []
    split = {name: round(rest_ms * share / whole, 3) for name, share in shares.items() if share}
    return [{"part": name, "ms": ms, "origin": "simulated"} for name, ms in split.items()]
