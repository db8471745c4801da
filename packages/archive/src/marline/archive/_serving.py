"""How an archive asks to be served, and the `model-config.yaml` that says so.

TorchServe has a default for everything and tells nobody; so every frontend value is written out. Its names stay its own here
and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """The frontend's values for one model; times in the unit of the name."""

    batch_size: int
    max_batch_delay_ms: int
    workers: int
    response_timeout_s: int
    startup_timeout_s: int
    job_queue_size: int
    device: str  # cpu | gpu


def to_yaml(serving: Serving, handler: Mapping[str, Any] | None = None) -> str:
    """The text of model-config.yaml; `handler` is the section that the shared handler reads."""
    values = {
        "minWorkers": serving.workers,
        "maxWorkers": serving.workers,
        "batchSize": serving.batch_size,
        "maxBatchDelay": serving.max_batch_delay_ms,
        "responseTimeout": serving.response_timeout_s,
        "startupTimeout": serving.startup_timeout_s,
        "maxRetryTimeoutInSec": 60,
        "jobQueueSize": serving.job_queue_size,
        "clientTimeoutInMills": 0,
        "useJobTicket": False,
        "deviceType": serving.device,
    }
    if handler:
        values["handler"] = dict(handler)
    return yaml.safe_dump(values, sort_keys=False)


def handler_of_yaml(text: str) -> Mapping[str, Any]:
    """The section that the shared handler reads; empty where there is none."""
    return dict((yaml.safe_load(text) or {}).get("handler") or {})


def from_yaml(text: str) -> Serving:
    """Read back what `to_yaml` wrote; KeyError where a value is not written out."""
    values: dict[str, Any] = yaml.safe_load(text)
    return Serving(
        batch_size=values["batchSize"],
        max_batch_delay_ms=values["maxBatchDelay"],
        workers=values["minWorkers"],
        response_timeout_s=values["responseTimeout"],
        startup_timeout_s=values["startupTimeout"],
        job_queue_size=values["jobQueueSize"],
        device=values["deviceType"],
    )
