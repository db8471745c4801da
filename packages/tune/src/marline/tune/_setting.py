"""What a trial serves with: the three values that decide how TorchServe forms batches."""

from dataclasses import dataclass

DEFAULT_BATCH_SIZE, DEFAULT_DELAY_MS = 1, 100  # TorchServe's, when nobody says otherwise


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """What is tried: (batchSize, maxBatchDelay, workers)."""

    batch_size: int
    max_batch_delay_ms: int
    workers: int
