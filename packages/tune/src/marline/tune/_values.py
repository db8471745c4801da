"""The values that the tuned archive asks for: those that were tuned, and those that follow from the objective.

What the archive says before is a bound: a derived queue or timeout is never above it. Every change is told.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from marline.archive import Serving, from_yaml, read_mar, tuned
from marline.core import RequestError
from marline.tune._devices import NO_GPU, Devices
from marline.tune._service import Point
from marline.tune._setting import Setting

BURST = 1.5  # of the requests that are answered in time: a median says nothing of the batches that are faster than it
PATIENCE = 3.0  # times the objective: as long as the load generator waits
SAME_THREADS = "as in the trials, in which one server carried more workers, too; 0 is the share of the cores"
LEAST_S = 10.0  # a worker that is started anew takes seconds, and what waited for it must still be answered


@dataclass(frozen=True, slots=True)
class Value:
    """One line of model-config.yaml: TorchServe's key, what it was before tuning, what it is, and why."""

    key: str
    was: int | list[int]
    now: int | list[int]
    why: str


@dataclass(frozen=True, slots=True)
class Tuned:
    """An archive that asks for the tuned values, its sha256 in hex, and where they come from."""

    file: Path
    sha256: str
    values: tuple[Value, ...]


def tuned_archive(
    archive: Path,
    setting: Setting,
    points: Sequence[Point],
    slo_ms: float,
    out: Path,
    *,
    shared: bool = False,
    devices: Devices = NO_GPU,
    threads: int | None = None,
) -> Tuned:
    """Write `tuned/NAME.mar` in `out`: the archive with the values for `setting`; all else its config says stays as it was."""
    file = out / "tuned" / archive.name
    file.parent.mkdir(exist_ok=True)
    told = from_yaml(read_mar(archive).config)
    serving, values = derived(told, setting, points, slo_ms, shared=shared, devices=devices, threads=threads)
    return Tuned(file, tuned(archive, serving, file), values)


def derived(
    told: Serving,
    setting: Setting,
    points: Sequence[Point],
    slo_ms: float,
    *,
    shared: bool = False,
    devices: Devices = NO_GPU,
    threads: int | None = None,
) -> tuple[Serving, tuple[Value, ...]]:
    """How the archive is to be served, each value with what it was in `told` and why; `points` are the service curve.

    responseTimeout and clientTimeoutInMills are 3 times the objective and at least 10 s, jobQueueSize is `queue_of`; none of
    them is above what `told` says, where 0 for the client's timeout says nothing. deviceIds are of `devices`, where there are.
    `threads` are those of a worker in the trials, where it was not its share of the cores.
    """
    queue, patience_s = queue_of(setting, points, slo_ms, shared=shared), math.ceil(max(LEAST_S, PATIENCE * slo_ms / 1e3))
    ids, placed = devices.ids(setting.workers, told.device_ids)
    serving = replace(
        told,
        batch_size=setting.batch_size,
        max_batch_delay_ms=setting.max_batch_delay_ms,
        workers=setting.workers,
        job_queue_size=min(queue, told.job_queue_size),
        response_timeout_s=min(patience_s, told.response_timeout_s),
        client_timeout_ms=min(1000 * patience_s, told.client_timeout_ms or 1000 * patience_s),
        device_ids=ids,
        threads=threads or told.threads,
    )
    patient = f"{PATIENCE:g} × the objective, at least {LEAST_S:g} s"
    return serving, (
        Value("batchSize", told.batch_size, serving.batch_size, "tuned"),
        Value("maxBatchDelay", told.max_batch_delay_ms, serving.max_batch_delay_ms, "tuned; ms"),
        Value("minWorkers, maxWorkers", told.workers, serving.workers, "tuned"),
        Value("jobQueueSize", told.job_queue_size, serving.job_queue_size, _queue_why(setting, slo_ms, queue, told)),
        Value(
            "responseTimeout",
            told.response_timeout_s,
            serving.response_timeout_s,
            f"{patient}, for one batch; s" + _kept("archive.response_timeout_s", patience_s, told.response_timeout_s),
        ),
        Value(
            "clientTimeoutInMills",
            told.client_timeout_ms,
            serving.client_timeout_ms,
            f"{patient}: nobody waits for longer; ms, 0 is never"
            + _kept("the model's config", 1000 * patience_s, told.client_timeout_ms or math.inf),
        ),
        *([Value("deviceIds", list(told.device_ids), list(ids), placed)] if devices.gpus else []),
        *([Value("handler.threads", told.threads or 0, threads, SAME_THREADS)] if threads else []),
    )


def queue_of(setting: Setting, points: Sequence[Point], slo_ms: float, *, shared: bool = False) -> int:
    """Requests that may wait: 1.5 times what busy workers answer within the objective, at least a batch for each and one more.

    (SLO - t(B)) B W / t(B), and where the workers share an accelerator no more than that carries. Overheads of the server are
    left out, so that this is a bound from above: whoever finds such a queue full would have missed the objective in it, and
    a load test that runs into it counts no request as missed that was not.
    """
    batch_ms, inference_ms = _batch_ms(points, setting.batch_size)
    batches_per_ms = min(setting.workers / batch_ms, 1 / inference_ms if shared else math.inf)
    in_time = max(0.0, slo_ms - batch_ms) * batches_per_ms * setting.batch_size
    return max(math.ceil(BURST * in_time), setting.batch_size * (setting.workers + 1))


def workers_within(workers: Sequence[int], told: Serving) -> tuple[tuple[int, ...], list[str]]:
    """The numbers of workers that may be tried, and what to say of the others.

    An archive that asks for more than TorchServe's own one worker bounds them; RequestError where that leaves none.
    """
    kept = tuple(one for one in workers if told.workers == 1 or one <= told.workers)
    if not kept:
        raise RequestError(
            f"tune.workers={list(workers)} are all above archive.workers={told.workers}, which the model's config states as a "
            "bound; raise that or lower these"
        )
    left_out = [one for one in workers if one not in kept]
    why = f"tune.workers {left_out} were not tried: the model's config states archive.workers={told.workers}"
    return kept, [why] if left_out else []


def _batch_ms(points: Sequence[Point], size: int) -> tuple[float, float]:
    """Median time of a batch, and of its inference, between two measured sizes on the line through them; in ms."""
    sizes = [point.batch for point in points]
    whole = np.interp(size, sizes, [point.p50_ms for point in points])
    inference = np.interp(size, sizes, [point.p50_ms if point.inference_ms is None else point.inference_ms for point in points])
    return float(whole), max(float(inference), 1e-3)


def _queue_why(setting: Setting, slo_ms: float, queue: int, told: Serving) -> str:
    least = queue == setting.batch_size * (setting.workers + 1)
    in_time = f"{BURST:g} × what is answered within {slo_ms:g} ms: whoever finds it full would be late"
    why = "a batch for each worker, and one that gathers" if least else in_time
    return why + _kept("archive.job_queue_size", queue, told.job_queue_size)


def _kept(setting: str, asked: int, bound: float) -> str:
    """What the model's own config keeps a derived value from being."""
    return f"; would be {asked}, and {setting} bounds it" if asked > bound else ""
