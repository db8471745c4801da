"""How long a new replica takes until it answers as the others do: what the stages measured of that, and what they did not."""

from collections.abc import Mapping, Sequence
from typing import Any

from marline.report._raw import Seen


def cold_start(deployed: Mapping[str, Any], archive: Mapping[str, Any], seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """Each step with its seconds, None where it was not measured, and what the figure covers."""
    workers, mib = deployed.get("workers", 1), archive["size_bytes"] / 2**20
    warm = min((one.facts["warmup_requests"] for one in seen), default=0)
    return [
        {"step": "the server itself", "seconds": None, "covers": "TorchServe and Java until they answer a ping"},
        {
            "step": "archive to READY",
            "seconds": deployed["ready_s"],
            "covers": f"registering, unpacking {mib:.3g} MiB, starting {workers} × Python and loading the model there",
        },
        {"step": "a worker alone", "seconds": None, "covers": "its part of the line above"},
        {"step": "the first request", "seconds": None, "covers": "its latency: what is initialised late lengthens it"},
        {
            "step": "warm-up",
            "seconds": None,
            "covers": f"not timed; at least {warm:,} requests came before those that were judged, in every trial",
        },
    ]
