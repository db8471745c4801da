"""How an archive asks to be served, and the `model-config.yaml` that says so.

TorchServe has a default for everything and tells nobody; so every frontend value is written out. Its names stay its own here,
in what reads a user's file (`_model_config.py`), and nowhere else.
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
    client_timeout_ms: int = 0  # a request that has waited for longer is dropped without an answer; 0: none is
    device_ids: tuple[int, ...] = ()  # among the GPUs that the server sees, in the order its workers get them; none: it chooses
    threads: int | None = None  # of each worker on a CPU, at most; none: its share of the cores


DEFAULT = Serving(  # for archives built outside a run, where no configs/default.yaml need be; a test holds them equal
    batch_size=1,
    max_batch_delay_ms=100,
    workers=1,
    response_timeout_s=60,
    startup_timeout_s=120,
    job_queue_size=1000,
    device="cpu",
)


def to_yaml(serving: Serving, handler: Mapping[str, Any] | None = None) -> str:
    """The text of model-config.yaml; `handler` is the section that the shared handler reads."""
    section = {**(handler or {}), **({"threads": serving.threads} if serving.threads is not None else {})}
    return as_text(_frontend(serving) | ({"handler": section} if section else {}))


def completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """A user's values and, behind them, the defaults of those frontend values that are not said.

    The device stays unsaid: TorchServe takes a GPU where the machine that serves has one.
    """
    defaults = _frontend(DEFAULT)
    del defaults["deviceType"]
    if "maxWorkers" in values:
        defaults["minWorkers"] = min(defaults["minWorkers"], values["maxWorkers"])
    defaults["maxWorkers"] = max(defaults["maxWorkers"], values.get("minWorkers", 0))
    return {**values, **{key: value for key, value in defaults.items() if key not in values}}


def as_text(values: Mapping[str, Any]) -> str:
    """Values as YAML, in their order."""
    return yaml.safe_dump(dict(values), sort_keys=False)  # escaped: yaml reads not every character back


def _frontend(serving: Serving) -> dict[str, Any]:
    return {
        "minWorkers": serving.workers,
        "maxWorkers": serving.workers,
        "batchSize": serving.batch_size,
        "maxBatchDelay": serving.max_batch_delay_ms,
        "responseTimeout": serving.response_timeout_s,
        "startupTimeout": serving.startup_timeout_s,
        "maxRetryTimeoutInSec": 60,
        "jobQueueSize": serving.job_queue_size,
        "clientTimeoutInMills": serving.client_timeout_ms,
        "useJobTicket": False,
        "deviceType": serving.device,
        **({"deviceIds": list(serving.device_ids)} if serving.device_ids else {}),
    }


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
        client_timeout_ms=values["clientTimeoutInMills"],
        device_ids=tuple(values.get("deviceIds") or ()),
        threads=(values.get("handler") or {}).get("threads"),
    )
