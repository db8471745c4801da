"""What the twin knows of a server: its service curve, every sample of it, and what a batch and a request cost around it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Stages = tuple[float, float, float]  # preprocessing, inference, postprocessing of one batch, in ms


@dataclass(frozen=True, slots=True)
class Point:
    """Service times of one batch size, in ms; the stages are medians, None where the handler does not report its batches.

    `stages_ms` holds every batch that was measured; where only whole times are known, they stand at inference. A point made by
    hand may leave it out: it has no jitter then.
    """

    batch: int
    samples: int
    p50_ms: float
    p95_ms: float
    pre_ms: float | None = None
    inference_ms: float | None = None
    post_ms: float | None = None
    stages_ms: tuple[Stages, ...] = ()

    @classmethod
    def of(cls, batch: int, stages_ms: ArrayLike, *, reported: bool = True) -> "Point":
        """The point of measured batches, each (preprocessing, inference, postprocessing) in ms: float [samples, 3]."""
        kept = np.round(np.asarray(stages_ms, np.float64), 3)
        p50, p95 = np.percentile(kept.sum(axis=1), [50, 95], method="inverted_cdf")
        pre, inference, post = np.median(kept, axis=0).round(3).tolist() if reported else (None, None, None)
        rows = tuple(map(tuple, kept.tolist()))
        return cls(batch, len(rows), round(float(p50), 3), round(float(p95), 3), pre, inference, post, rows)

    @property
    def rows_ms(self) -> NDArray[np.float64]:
        """float64 [samples, 3]: the stages of every measured batch, or the one row that the medians are."""
        if self.stages_ms:
            return np.array(self.stages_ms, np.float64)
        inference_ms = self.p50_ms - (self.pre_ms or 0.0) - (self.post_ms or 0.0)
        return np.array([[self.pre_ms or 0.0, inference_ms, self.post_ms or 0.0]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A server as the twin sees it: measured, or made by hand."""

    points: tuple[Point, ...]  # ascending in batch, from 1
    batch_ms: float  # a worker's time per batch outside the handler (Java to Python and back), in which it does nothing else
    request_ms: float  # the same, per request of a batch
    http_ms: float  # what a request waits outside the worker: HTTP in, HTTP out
    shared: bool  # the workers share one accelerator: inference is serial over all of them, pre- and postprocessing are not
    queue: int = 1000  # requests that may wait (jobQueueSize); whoever comes then is refused

    def __post_init__(self) -> None:
        sizes = [point.batch for point in self.points]
        if not sizes or sizes[0] != 1 or sizes != sorted(set(sizes)):
            raise ValueError(f"a service curve needs points of ascending batch sizes from 1, got {sizes}")

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "Service":
        """What `dataclasses.asdict` made of a service, as JSON gives it back."""
        points = ({**point, "stages_ms": tuple(map(tuple, point["stages_ms"]))} for point in told["points"])
        return cls(**{**told, "points": tuple(Point(**point) for point in points)})

    @property
    def largest(self) -> int:
        """The largest batch that was measured; nothing is said of larger ones."""
        return self.points[-1].batch

    def table_ms(self) -> NDArray[np.float64]:
        """float64 [largest + 1, K, 3]: K equally likely rows of stage times for every batch size; row [0] is empty.

        Measured sizes keep their samples, ordered by their sum. Between two sizes each quantile is interpolated between the
        same quantiles of both: published curves are no lines, and a line fitted through all points misses the knee.
        """
        kept = {point.batch: _ordered(point.rows_ms) for point in self.points}
        many = max(len(rows) for rows in kept.values())
        quantiles = (np.arange(many) + 0.5) / many
        even = {size: rows[(quantiles * len(rows)).astype(np.int64)] for size, rows in kept.items()}
        table = np.zeros((self.largest + 1, many, 3))
        table[1] = even[1]
        for low, high in zip(self.points, self.points[1:], strict=False):
            for size in range(low.batch + 1, high.batch + 1):
                share = (size - low.batch) / (high.batch - low.batch)
                table[size] = (1 - share) * even[low.batch] + share * even[high.batch]
        return table


def _ordered(rows_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows_ms[np.argsort(rows_ms.sum(axis=1), kind="stable")]
