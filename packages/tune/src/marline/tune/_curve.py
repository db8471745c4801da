"""Measures the service curve t(b) in the real worker: how long a batch of b takes there, stage by stage.

Of a handler that does not report its batches TorchServe says how long each took, and no stage is known.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from marline.core import StageError, WorkerError, progress
from marline.deploy import Server, content_type_of
from marline.tune._batches import Batch, read_batches
from marline.tune._service import Point

FULL_MS = 1000  # for batches that leave as soon as they are full
GATHER_MS = 50  # longer than a burst takes to arrive; it delays a batch, it is not part of its service time
WARM_UP = 3
OUT_OF_MEMORY = 507  # TorchServe's answer to a MemoryError, to any CUDA error, and to a worker that was killed


def batch_sizes_of(largest: int) -> list[int]:
    """1, 2, 4, ... up to and including `largest`: published curves are no lines, so every power of two is measured."""
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power <= largest]
    return sizes if sizes[-1] == largest else [*sizes, largest]


class TooLarge(StageError):
    """A batch of this size does not fit into the memory that the worker has."""


def fitting_curve(
    server: Server, archive: Path, model: str, payloads: Sequence[Path], sizes: Sequence[int], repeats: int
) -> list[Point]:
    """The service curve up to the largest of `sizes`, or of 1, that the worker's memory holds; TooLarge where not even 1 is."""
    tried = sorted({1, *sizes})
    while True:
        try:
            return service_curve(server, archive, model, payloads, tried[-1], repeats)
        except TooLarge:
            if tried.pop() == 1:
                raise
            server.unload(model)


def service_curve(
    server: Server, archive: Path, model: str, payloads: Sequence[Path], largest: int, repeats: int
) -> list[Point]:
    """Send bursts of b requests, which the server gathers into batches of b; `repeats` of each size are kept."""
    _load(server, archive, model, largest, GATHER_MS)
    bodies = [(file.read_bytes(), content_type_of(file.name)) for file in payloads]
    points = []
    sizes = batch_sizes_of(largest)
    with ThreadPoolExecutor(largest) as senders:
        _send(server, model, *bodies[0])
        reports = bool(read_batches(server.batches))
        for index, size in enumerate(sizes):
            progress(0.05 + 0.1 * index / len(sizes), f"service curve, batches of {size}")
            if not reports:  # nobody could tell whether a burst became one batch, so that only whole ones may leave
                server.unload(model)
                _load(server, archive, model, size, FULL_MS)
            before, times_ms = len(read_batches(server.batches)), []
            for turn in range(repeats + WARM_UP):
                chosen = [bodies[(turn + item) % len(bodies)] for item in range(size)]
                list(senders.map(lambda told: _send(server, model, *told), chosen))
                times_ms += [] if reports else [server.client.batch_ms(model)]
            batches = [batch for batch in read_batches(server.batches)[before:] if batch.size == size]
            points.append(_point(size, batches[WARM_UP:], model) if reports else _whole(size, times_ms[WARM_UP:]))
    server.unload(model)
    return points


def is_reported(curve: Sequence[Point]) -> bool:
    """Whether the handler reports its batches, as the shared one does."""
    return all(point.inference_ms is not None for point in curve)


def _load(server: Server, archive: Path, model: str, size: int, delay_ms: int) -> None:
    """Load with a batch size; our handler tries it while it loads."""
    try:
        server.load(archive, model, batch_size=size, max_batch_delay_ms=delay_ms, workers=1)
    except WorkerError as error:
        if "MemoryError" in str(error) or "OutOfMemory" in str(error):
            raise TooLarge(f"{model} cannot be loaded with batches of {size}: {error}") from None
        raise


def _send(server: Server, model: str, body: bytes, content_type: str) -> None:
    reply = server.client.predict(model, body, content_type)
    if reply.status == OUT_OF_MEMORY:
        raise TooLarge(f"{model} answers {reply.status} while its service curve is measured: {reply.body[:300]!r}")
    if reply.status != 200:
        raise StageError(f"{model} answers {reply.status} while its service curve is measured: {reply.body[:300]!r}")


def _point(size: int, batches: Sequence[Batch], model: str) -> Point:
    if len(batches) < 2:
        raise StageError(f"bursts of {size} requests to {model} did not arrive as batches of {size}; is the machine very busy?")
    return Point.of(size, [(batch.pre_ms, batch.inference_ms, batch.post_ms) for batch in batches])


def _whole(size: int, times_ms: Sequence[float]) -> Point:
    return Point.of(size, [(0.0, time_ms, 0.0) for time_ms in times_ms], reported=False)
