"""Measures in the real worker what the twin needs: t(b) stage by stage, and what a batch and a request cost around it.

No load test is sent. The model is loaded for ever larger batches, until memory or the objective ends that:

- a burst of b requests becomes one batch and gives t(b), for b = 1, 2, 4, ...
- a burst of many batches keeps the worker busy: what passes from the end of one batch to the beginning of the next, in which it
  only hands over answers and requests, is o_batch + o_request b; several sizes tell the two apart
- of a request that is alone, what neither its batch nor that explains is HTTP

Batches of 1 come last: Java has compiled what serves a request by then, which at first takes twice as long.
Of a handler that does not report its batches TorchServe says how long each took, and no stage is known.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from marline.archive import from_yaml, read_mar
from marline.core import StageError, progress
from marline.deploy import Server
from marline.tune._batches import Batch, read_batches
from marline.tune._burst import Bursts, TooLarge
from marline.tune._fit import load_unless_too_large
from marline.tune._service import Point, Service, Stages

FULL_MS = 1000  # for batches that leave as soon as they are full
GATHER_MS = 50  # longer than a burst takes to arrive; it delays a batch, it is not part of its service time
WARM_UP, KNOWN = 3, 5  # bursts of each size that are not kept; and after which it is known whether larger ones make sense
AT_ONCE = 3  # sizes that one registration serves: each takes seconds, and a failed one ends the growth
ROOM, FEWEST = 800, 4  # connections at most, well below what a process may open; batches that a backlog must have
BACKLOG, BACKLOG_BATCHES, BACKLOG_S = 256, 12, 3.0  # requests that keep a worker busy; batches at least; or seconds


@dataclass(frozen=True, slots=True)
class _Bench:
    server: Server
    archive: Path
    model: str
    payloads: Sequence[Path]
    repeats: int
    slo_ms: Callable[[float], float] | None
    room: int  # requests that may wait at once


@dataclass(slots=True)
class _Found:
    """What was measured so far, by batch size: the stages of batches, and a worker's times between two of them."""

    rows_ms: dict[int, list[Stages]] = field(default_factory=dict)
    gaps_ms: dict[int, float] = field(default_factory=dict)
    outside_ms: float = 0.0  # what a request that is alone takes beyond its batch
    reports: bool = True  # whether the handler reports its batches, as far as it is known
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
    """The service of one worker, for 1, 2, 4, ... and the largest of `sizes`, as far as memory, objective and queue allow.

    At least `repeats` batches of each size are kept; `slo_ms` gives the objective for t(1); `shared` says that all workers use
    one accelerator. TooLarge where memory does not even hold a batch of 1. The model must not be loaded, and is not afterwards.
    """
    queue = from_yaml(read_mar(archive).config).job_queue_size
    bench, found = _Bench(server, archive, model, payloads, repeats, slo_ms, min(ROOM, queue)), _Found()
    rest = batch_sizes_of(min(bench.room, max(1, *sizes)))
    while rest and not found.ended:
        chunk = rest[: AT_ONCE if found.reports else 1]
        told = " ".join(map(str, chunk))
        progress(0.05 + 0.02 * len(found.rows_ms), f"service curve, batches of {told}")
        _measure(bench, chunk, found)
        rest = [size for size in rest if size not in found.rows_ms]
    progress(0.05 + 0.02 * len(found.rows_ms), "service curve, one request at a time")
    _measure_alone(bench, found)
    batch_ms, request_ms = _apart(found.gaps_ms)
    return Service(
        points=tuple(Point.of(size, rows, reported=found.reports) for size, rows in sorted(found.rows_ms.items())),
        batch_ms=batch_ms,
        request_ms=request_ms,
        http_ms=max(0.0, found.outside_ms - batch_ms - request_ms),
        shared=shared,
        queue=queue,
    )


def batch_sizes_of(largest: int) -> list[int]:
    """1, 2, 4, ... up to and including `largest`: published curves are no lines, so every power of two is measured."""
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power <= largest]
    return sizes if sizes[-1] == largest else [*sizes, largest]


def is_reported(curve: Sequence[Point]) -> bool:
    """Whether the handler reports its batches, as the shared one does."""
    return all(point.inference_ms is not None for point in curve)


def _measure(bench: _Bench, sizes: Sequence[int], found: _Found) -> None:
    """Add what one registration can tell of these sizes; without the largest of them where memory ends."""
    while sizes and not _measured(bench, sizes, found):
        found.ended, sizes = True, [size for size in sizes[:-1] if size not in found.rows_ms]


def _measured(bench: _Bench, sizes: Sequence[int], found: _Found) -> bool:
    """Whether memory held them all; what was measured before it ended is kept."""
    if not _load(bench, sizes[-1], GATHER_MS if found.reports else FULL_MS):
        return False
    try:
        with Bursts(bench.server, bench.model, bench.payloads) as bursts:
            _measure_sizes(bench, bursts, sizes, found)
    except TooLarge:
        if sizes[-1] == 1:
            raise
        return False
    finally:
        bench.server.unload(bench.model)
    return True


def _measure_sizes(bench: _Bench, bursts: Bursts, sizes: Sequence[int], found: _Found) -> None:
    """Add the stages of these sizes, and a busy worker's gap for the largest, unless a smaller one is too long already."""
    if not found.rows_ms and found.reports:
        before = len(read_batches(bench.server.batches))
        bursts.send(1)
        found.reports = len(read_batches(bench.server.batches)) > before
    if not found.reports and len(sizes) > 1:
        return  # nobody could tell whether a burst became one batch: each size has a registration of its own
    seen = _repeated(bench, bursts, sizes, found)
    found.rows_ms |= {size: [stages for stages, _ in rows] for size, rows in seen.items()}
    found.ended |= any(_is_too_long(bench, size, found.rows_ms) for size in seen)
    if sizes[-1] > 1 and sizes[-1] in seen and bench.room >= FEWEST * sizes[-1]:
        found.gaps_ms[sizes[-1]] = _gap_ms(bench, bursts, sizes[-1], found)


def _measure_alone(bench: _Bench, found: _Found) -> None:
    """Add what batches of 1 tell of the worker and of HTTP; and more of t(1), which every default is compared with."""
    _load(bench, 1, GATHER_MS)
    try:
        with Bursts(bench.server, bench.model, bench.payloads) as bursts:
            seen = _repeated(bench, bursts, [1], found)[1]
            found.outside_ms = median(took_ms - sum(stages) for stages, took_ms in seen)
            found.rows_ms[1] += [stages for stages, _ in seen]
            if bench.room >= FEWEST:
                found.gaps_ms[1] = _gap_ms(bench, bursts, 1, found)
    finally:
        bench.server.unload(bench.model)


def _load(bench: _Bench, size: int, delay_ms: int) -> bool:
    """Load with a batch size, which our handler tries while it loads; False where memory ends. TooLarge for a size of 1."""
    error = load_unless_too_large(bench.server, bench.archive, bench.model, size, delay_ms, 1)
    if size == 1 and error is not None:
        raise TooLarge(f"{bench.model} cannot be loaded with batches of 1: {error}") from None
    return error is None


def _repeated(bench: _Bench, bursts: Bursts, sizes: Sequence[int], found: _Found) -> dict[int, list[tuple[Stages, float]]]:
    """The stages of each burst that became one batch, and how long its last answer took, in ms; without the first few.

    The sizes take turns, so that a slow while of the machine meets all of them. Once one is known to take longer than the
    objective, larger ones are left out.
    """
    seen: dict[int, list[tuple[Stages, float]]] = {size: [] for size in sizes}
    for turn in range(bench.repeats + WARM_UP):
        for size in seen:
            seen[size] += _burst(bench, bursts, size, found.reports)
        if turn == KNOWN - 1:
            known = found.rows_ms | {size: [stages for stages, _ in rows] for size, rows in seen.items() if rows}
            last = next((size for size in known if _is_too_long(bench, size, known)), max(sizes))
            seen = {size: rows for size, rows in seen.items() if size <= last}
    for size, rows in seen.items():
        if len(rows) < WARM_UP + 2:
            told = f"bursts of {size} requests to {bench.model} did not arrive as batches of {size}"
            raise StageError(f"{told}; is the machine very busy?")
    return {size: rows[WARM_UP:] for size, rows in seen.items()}


def _burst(bench: _Bench, bursts: Bursts, size: int, reports: bool) -> list[tuple[Stages, float]]:
    """The stages of one burst and how long its last answer took, in ms; nothing where it did not become one batch."""
    before = len(read_batches(bench.server.batches)) if reports else 0
    took_ms = max(bursts.send(size))
    if not reports:
        return [((0.0, bench.server.client.batch_ms(bench.model), 0.0), took_ms)]
    batches = read_batches(bench.server.batches)[before:]
    return [(_stages(batch), took_ms) for batch in batches if batch.size == size and len(batches) == 1]


def _is_too_long(bench: _Bench, size: int, rows_ms: Mapping[int, Sequence[Stages]]) -> bool:
    """Whether a batch of this size alone takes longer than the objective."""
    return bench.slo_ms is not None and _typical_ms(rows_ms[size]) > bench.slo_ms(_typical_ms(rows_ms[1]))


def _gap_ms(bench: _Bench, bursts: Bursts, size: int, found: _Found) -> float:
    """A busy worker's time between two full batches, on average; its batches are samples of t(b) as well."""
    typical_ms = _typical_ms(found.rows_ms[size])
    many = max(BACKLOG_BATCHES, min(BACKLOG // size, round(BACKLOG_S * 1e3 / typical_ms)))
    many = min(many, bench.room // size)
    before = len(read_batches(bench.server.batches))
    took_ms = max(bursts.send(many * size))
    if not found.reports:
        return max(0.0, (took_ms - max(bursts.send(size))) / (many - 1) - typical_ms)
    batches = read_batches(bench.server.batches)[before + 1 :]  # the first may have left before the others were there
    full = [(one, other) for one, other in pairwise(batches) if other.size == size]
    if not full:
        raise StageError(
            f"{many * size} requests to {bench.model} at once made no full batch of {size}; is the machine very busy?"
        )
    found.rows_ms[size] += [_stages(batch) for _, batch in full]
    return float(np.median([max(0.0, (other.ended_s - one.ended_s) * 1e3 - other.total_ms) for one, other in full]))


def _typical_ms(rows_ms: Sequence[Stages]) -> float:
    return median(sum(stages) for stages in rows_ms)


def _stages(batch: Batch) -> Stages:
    return batch.pre_ms, batch.inference_ms, batch.post_ms


def _apart(gaps_ms: dict[int, float]) -> tuple[float, float]:
    """What a batch and what a request adds to the gap, neither below 0; by least squares of the relative misses."""
    sizes, gaps = np.array([*gaps_ms], np.float64), np.maximum(1e-3, [*gaps_ms.values()])
    if len(gaps_ms) < 2:
        return float(gaps.mean()) if len(gaps_ms) else 0.0, 0.0
    (batch_ms, request_ms), *_ = np.linalg.lstsq(np.stack([1 / gaps, sizes / gaps], axis=1), np.ones(len(gaps)), rcond=None)
    if request_ms < 0:
        return float(gaps.mean()), 0.0
    return (float(batch_ms), float(request_ms)) if batch_ms > 0 else (0.0, float(np.mean(gaps / sizes)))
