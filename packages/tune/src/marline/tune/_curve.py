"""Measures in the real worker what the twin needs: t(b) stage by stage, and what a batch and a request cost around it.

No load test is sent. The model is loaded for ever larger batches, until memory or the objective ends that:

- a burst of b requests becomes one batch and gives t(b), for b = 1, 2, 4, ...
- a burst of many batches keeps the worker busy: what passes from the end of one batch to the beginning of the next, in which it
  only hands over answers and requests, is o_batch + o_request b; two sizes tell the two apart
- of a request that is alone, what neither its batch nor that explains is HTTP

Of a handler that does not report its batches TorchServe says how long each took, and no stage is known.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from marline.core import StageError, WorkerError, progress
from marline.deploy import Server
from marline.tune._batches import Batch, read_batches
from marline.tune._burst import Bursts, TooLarge
from marline.tune._service import Point, Service

FULL_MS = 1000  # for batches that leave as soon as they are full
GATHER_MS = 50  # longer than a burst takes to arrive; it delays a batch, it is not part of its service time
WARM_UP = 3
JAVA_WARM, JAVA_WARM_S = 300, 4.0  # requests or seconds before anything counts: Java compiles what serves a request meanwhile
AT_ONCE = 3  # sizes that one registration serves: each takes seconds, and a failed one ends the growth
BACKLOG, BACKLOG_BATCHES, BACKLOG_S = 256, 12, 3.0  # requests that keep a worker busy; batches at least; or seconds


@dataclass(frozen=True, slots=True)
class _Bench:
    server: Server
    archive: Path
    model: str
    payloads: Sequence[Path]
    repeats: int
    slo_ms: Callable[[float], float] | None


@dataclass(slots=True)
class _Found:
    """What was measured so far; `gaps_ms` are a worker's times between two batches, by batch size."""

    points: list[Point]
    gaps_ms: dict[int, float]
    outside_ms: float = 0.0  # what a request that is alone takes beyond its batch
    ended: bool = False  # memory or the objective has no room for larger ones


def measure_service(
    server: Server,
    archive: Path,
    model: str,
    payloads: Sequence[Path],
    sizes: Sequence[int],
    repeats: int,
    *,
    slo_ms: Callable[[float], float] | None = None,
    shared: bool = False,
) -> Service:
    """The service of one worker, for 1, 2, 4, ... and the largest of `sizes`, as far as memory and the objective allow.

    `repeats` batches of each size are kept; `shared` says that all workers use one accelerator. TooLarge where memory does not
    even hold a batch of 1. `slo_ms` gives the objective for t(1). The model must not be loaded before, and is not after.
    """
    bench, found = _Bench(server, archive, model, payloads, repeats, slo_ms), _Found([], {})
    rest = batch_sizes_of(max(1, *sizes))
    many = len(rest)
    while rest and not found.ended:
        alone = not found.points or not is_reported(found.points)
        chunk = rest[: 1 if alone else AT_ONCE]
        rest = rest[len(chunk) :]
        progress(0.05 + 0.1 * len(found.points) / many, f"service curve, batches of {' '.join(map(str, chunk))}")
        _measure(bench, chunk, found)
    batch_ms, request_ms = _apart(found.gaps_ms)
    http_ms = max(0.0, found.outside_ms - batch_ms - request_ms)
    return Service(points=tuple(found.points), batch_ms=batch_ms, request_ms=request_ms, http_ms=http_ms, shared=shared)


def fitting_curve(
    server: Server, archive: Path, model: str, payloads: Sequence[Path], sizes: Sequence[int], repeats: int
) -> list[Point]:
    """The points of `measure_service`, without an objective."""
    return list(measure_service(server, archive, model, payloads, sizes, repeats).points)


def batch_sizes_of(largest: int) -> list[int]:
    """1, 2, 4, ... up to and including `largest`: published curves are no lines, so every power of two is measured."""
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power <= largest]
    return sizes if sizes[-1] == largest else [*sizes, largest]


def is_reported(curve: Sequence[Point]) -> bool:
    """Whether the handler reports its batches, as the shared one does."""
    return all(point.inference_ms is not None for point in curve)


def _measure(bench: _Bench, sizes: Sequence[int], found: _Found) -> None:
    """Add what one registration can tell of these sizes; the largest of them that can be loaded is loaded."""
    delay_ms = FULL_MS if found.points and not is_reported(found.points) else GATHER_MS
    while not _load(bench, sizes[-1], delay_ms):
        found.ended, sizes = True, sizes[:-1]
        if not sizes:
            return
    try:
        with Bursts(bench.server, bench.model, bench.payloads) as bursts:
            reports = _warmed(bench, bursts)
            for size in sizes:
                found.points.append(_point(bench, bursts, size, found) if reports else _whole(bench, bursts, size, found))
                if bench.slo_ms is not None and found.points[-1].p50_ms > bench.slo_ms(found.points[0].p50_ms):
                    found.ended = True
                    return
            found.gaps_ms[sizes[-1]] = _gap_ms(bench, bursts, found.points[-1])
    except TooLarge:
        if not found.points:
            raise
        found.ended = True
    finally:
        bench.server.unload(bench.model)


def _load(bench: _Bench, size: int, delay_ms: int) -> bool:
    """Load with a batch size, which our handler tries while it loads; False where memory ends. TooLarge for a size of 1."""
    try:
        bench.server.load(bench.archive, bench.model, batch_size=size, max_batch_delay_ms=delay_ms, workers=1)
    except WorkerError as error:
        if "MemoryError" not in str(error) and "OutOfMemory" not in str(error):
            raise
        if size == 1:
            raise TooLarge(f"{bench.model} cannot be loaded with batches of 1: {error}") from None
        return False
    return True


def _warmed(bench: _Bench, bursts: Bursts) -> bool:
    """Send requests until the server has settled; whether the handler reports its batches."""
    until, sent = time.monotonic() + JAVA_WARM_S, 0
    while sent < JAVA_WARM and time.monotonic() < until:
        bursts.send(2)
        sent += 2
    return bool(read_batches(bench.server.batches))


def _point(bench: _Bench, bursts: Bursts, size: int, found: _Found) -> Point:
    before, took_ms = len(read_batches(bench.server.batches)), []
    for _ in range(bench.repeats + WARM_UP):
        took_ms.append(max(bursts.send(size)))
    batches = read_batches(bench.server.batches)[before:]
    if size == 1:
        found.outside_ms = median(ms - batch.total_ms for ms, batch in zip(took_ms, batches, strict=False))
    whole = [batch for batch in batches if batch.size == size][WARM_UP:]
    if len(whole) < 2:
        raise StageError(
            f"bursts of {size} requests to {bench.model} did not arrive as batches of {size}; is the machine very busy?"
        )
    return Point.of(size, [(batch.pre_ms, batch.inference_ms, batch.post_ms) for batch in whole])


def _whole(bench: _Bench, bursts: Bursts, size: int, found: _Found) -> Point:
    took_ms, times_ms = [], []
    for _ in range(bench.repeats + WARM_UP):
        took_ms.append(max(bursts.send(size)))
        times_ms.append(bench.server.client.batch_ms(bench.model))
    if size == 1:
        found.outside_ms = median(ms - time_ms for ms, time_ms in zip(took_ms, times_ms, strict=True))
    return Point.of(size, [(0.0, time_ms, 0.0) for time_ms in times_ms[WARM_UP:]], reported=False)


def _gap_ms(bench: _Bench, bursts: Bursts, point: Point) -> float:
    """A busy worker's time between two full batches, on average."""
    many = max(BACKLOG_BATCHES, min(BACKLOG // point.batch, round(BACKLOG_S * 1e3 / point.p50_ms)))
    before = len(read_batches(bench.server.batches))
    took_ms = max(bursts.send(many * point.batch))
    batches = read_batches(bench.server.batches)[before:]
    if not batches:  # the first is not preceded by a full one, and waits for HTTP
        return max(0.0, (took_ms - max(bursts.send(point.batch))) / (many - 1) - point.p50_ms)
    gaps = [_between(one, other) for one, other in pairwise(batches[1:]) if other.size == point.batch]
    return float(np.median(gaps))


def _between(one: Batch, other: Batch) -> float:
    return max(0.0, (other.ended_s - one.ended_s) * 1e3 - other.total_ms)


def _apart(gaps_ms: dict[int, float]) -> tuple[float, float]:
    """What a batch and what a request adds to the gap, neither below 0; by least squares of the relative misses."""
    sizes, gaps = np.array([*gaps_ms], np.float64), np.maximum(1e-3, [*gaps_ms.values()])
    if len(gaps_ms) < 2:
        return float(gaps.mean()) if len(gaps_ms) else 0.0, 0.0
    (batch_ms, request_ms), *_ = np.linalg.lstsq(np.stack([1 / gaps, sizes / gaps], axis=1), np.ones(len(gaps)), rcond=None)
    if request_ms < 0:
        return float(gaps.mean()), 0.0
    return (float(batch_ms), float(request_ms)) if batch_ms > 0 else (0.0, float(np.mean(gaps / sizes)))
