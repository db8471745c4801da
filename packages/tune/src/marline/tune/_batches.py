"""Reads what our handler logs of each batch in the worker."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch: when it ended (monotonic clock, s), how many requests it held, and its stages in ms."""

    ended_s: float
    size: int
    pre_ms: float
    inference_ms: float
    post_ms: float

    @property
    def total_ms(self) -> float:
        """The worker's time for the batch."""
        return self.pre_ms + self.inference_ms + self.post_ms


def read_batches(folder: Path) -> list[Batch]:
    """All batches of all workers so far, in the order they ended."""
    lines = (line for file in folder.glob("*.csv") for line in file.read_text().splitlines(keepends=True))
    return sorted((_batch(line) for line in lines if line.endswith("\n")), key=lambda batch: batch.ended_s)


def _batch(line: str) -> Batch:
    ended, size, *stages = line.split(",")
    return Batch(float(ended), int(size), *(float(stage) for stage in stages))
