"""What a trial serves with: the three values that decide how TorchServe forms batches."""

from dataclasses import dataclass

DEFAULT_BATCH_SIZE, DEFAULT_DELAY_MS = 1, 100  # TorchServe's, when nobody says otherwise


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """What is tried: (batchSize, maxBatchDelay, workers)."""

    batch_size: int
    max_batch_delay_ms: int
    workers: int

    @property
    def kind(self) -> tuple[int, int]:
        """All but the delay, which hardly ever decides."""
        return self.batch_size, self.workers
