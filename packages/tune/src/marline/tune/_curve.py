"""Measures the service curve t(b) in the real worker: how long a batch of b takes there, stage by stage."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from marline.core import StageError, progress
from marline.deploy import Server, content_type_of
from marline.tune._batches import Batch, read_batches

GATHER_MS = 50  # longer than a burst takes to arrive; it delays a batch, it is not part of its service time
WARM_UP = 3


@dataclass(frozen=True, slots=True)
class Point:
    """Service times of one batch size, in ms; the stages are medians."""

    batch: int
    samples: int
    p50_ms: float
    p95_ms: float
    pre_ms: float
    inference_ms: float
    post_ms: float


def batch_sizes_of(largest: int) -> list[int]:
    """1, 2, 4, ... up to and including `largest`: published curves are no lines, so every power of two is measured."""
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power <= largest]
    return sizes if sizes[-1] == largest else [*sizes, largest]


def service_curve(
    server: Server, archive: Path, model: str, payloads: Sequence[Path], largest: int, repeats: int
) -> list[Point]:
    """Send bursts of b requests, which the server gathers into batches of b; `repeats` of each size are kept."""
    server.load(archive, model, batch_size=largest, max_batch_delay_ms=GATHER_MS, workers=1)
    bodies = [(file.read_bytes(), content_type_of(file.name)) for file in payloads]
    points = []
    sizes = batch_sizes_of(largest)
    with ThreadPoolExecutor(largest) as senders:
        for index, size in enumerate(sizes):
            progress(0.05 + 0.1 * index / len(sizes), f"service curve, batches of {size}")
            before = len(read_batches(server.batches))
            for turn in range(repeats + WARM_UP):
                chosen = [bodies[(turn + item) % len(bodies)] for item in range(size)]
                list(senders.map(lambda told: _send(server, model, *told), chosen))
            batches = [batch for batch in read_batches(server.batches)[before:] if batch.size == size]
            points.append(_point(size, batches[WARM_UP:], model))
    server.unload(model)
    return points


def _send(server: Server, model: str, body: bytes, content_type: str) -> None:
    reply = server.client.predict(model, body, content_type)
    if reply.status != 200:
        raise StageError(f"{model} answers {reply.status} while its service curve is measured: {reply.body[:300]!r}")


def _point(size: int, batches: Sequence[Batch], model: str) -> Point:
    if len(batches) < 2:
        raise StageError(f"bursts of {size} requests to {model} did not arrive as batches of {size}; is the machine very busy?")
    totals = np.array([batch.total_ms for batch in batches])
    stages = np.median([(batch.pre_ms, batch.inference_ms, batch.post_ms) for batch in batches], axis=0)
    p50, p95 = np.percentile(totals, [50, 95], method="inverted_cdf")
    return Point(size, len(batches), round(float(p50), 3), round(float(p95), 3), *(round(float(part), 3) for part in stages))
