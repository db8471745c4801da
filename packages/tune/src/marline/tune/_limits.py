"""The objective, what may be tried of what was asked for, and why the rest may not."""

from collections.abc import Mapping, Sequence
from typing import Any

from marline.core import Config, TuneConfig
from marline.tune._curve import ROOM
from marline.tune._service import Point, Service

SLO_FACTOR, SLO_FLOOR_MS = 5.0, 50.0


def slo_of(config: Config, t1_ms: float) -> dict[str, Any]:
    """The latency objective: as configured, or max(5 t(1), 50 ms) where `tune.slo_ms=auto`."""
    if config.tune.slo_ms != "auto":
        return {"percentile": config.tune.percentile, "ms": config.tune.slo_ms, "origin": "config"}
    return {"percentile": config.tune.percentile, "ms": round(max(SLO_FACTOR * t1_ms, SLO_FLOOR_MS), 1), "origin": "auto"}


def within(config: Config, service: Service, workers: tuple[int, ...]) -> tuple[TuneConfig, list[str]]:
    """What may be tried of what was asked for, and why the rest may not."""
    told, slo_ms = within_curve(config.tune, service.points), slo_of(config, service.points[0].p50_ms)["ms"]
    return told.model_copy(update={"workers": workers}), _left_out(config.tune, told, service, slo_ms)


def within_curve(config: TuneConfig, curve: Sequence[Point]) -> TuneConfig:
    """The same, without batch sizes that the curve does not reach: memory does not hold them, or the objective allows none."""
    kept = tuple(size for size in config.batch_sizes if size <= curve[-1].batch)
    return config.model_copy(update={"batch_sizes": kept})


def no_room(told: TuneConfig, most: Mapping[int, int]) -> list[str]:
    """Which numbers of workers had room for smaller batches only."""
    largest = max((1, *told.batch_sizes))
    return [
        f"memory holds batches of {size} in {workers} workers: larger ones were not tried with so many"
        for workers, size in most.items()
        if size < largest
    ]


def few_threads(workers: Sequence[int], threads: int) -> str:
    """What trials of several numbers of workers on one processor leave out."""
    return (
        f"every worker had {threads} thread{'s' * (threads != 1)} in all trials, as one server carried up to {max(workers)} "
        f"workers, and has as many when it is served; alone, fewer workers could have more threads each, and the default could "
        f"carry more: tune.workers=[{min(workers)}] shows it"
    )


def _left_out(config: TuneConfig, told: TuneConfig, service: Service, slo_ms: float) -> list[str]:
    """Why batch sizes were not tried."""
    sizes, last = [size for size in config.batch_sizes if size not in told.batch_sizes], service.points[-1]
    if not sizes:
        return []
    if last.p50_ms > slo_ms:
        why = f"a batch of {last.batch} takes {last.p50_ms:.0f} ms, {slo_ms:g} ms are allowed"
    elif last.batch == min(ROOM, service.queue):
        why = (
            f"more than {last.batch} requests cannot wait (archive.job_queue_size={service.queue}, {ROOM} connections at most)"
        )
    else:
        why = f"batches of {min(sizes)} end the worker's memory (507)"
    return [f"{why}: tune.batch_sizes {sizes} were not tried"]
