"""Which GPUs the tuned archive asks for: the plan for those that the server sees, unless the model's own config names some."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marline.archive import read_mar
from marline.core import Gpu, RequestError
from marline.deploy import plan

COPIES = 2.0  # of the archive's bytes where nothing was measured: the weights, and as much for a batch and what is freed late
CUDA_MB = 500.0  # CUDA's own part of each process


@dataclass(frozen=True, slots=True)
class Devices:
    """The GPUs before a model was on them, none where the CPU serves; what a worker takes of one, and how that is known."""

    gpus: tuple[Gpu, ...] = ()
    worker_mb: float = 0.0
    why: str = ""

    def ids(self, workers: int, stated: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
        """`deviceIds` for so many workers, and why: what the config states is kept, and none leaves it to TorchServe."""
        try:
            planned, why = plan(workers, self.worker_mb, self.gpus).device_ids, f"the freest first; {self.why}"
        except RequestError as error:  # the workers ran, as what they took is the most that was seen
            planned, why = (), f"left to TorchServe: {error}"
        if not stated:
            return planned, why
        kept = f"; would be {list(planned)}, and archive.device_ids bounds it" if stated != planned else ""
        return stated, why + kept


NO_GPU = Devices()


def devices_of(gpus: Sequence[Gpu], use: Sequence[Mapping[str, Any]], archive: Path) -> Devices:
    """What a worker takes is what the busiest GPU showed above what it had before, else reckoned from the archive's bytes.

    `use` is what `gpu_use` told of the service curve, which is measured with one worker and the largest batch of all.
    """
    taken_mb = max((one["memory_mb"] - one["memory_before_mb"] for one in use), default=0.0)
    if taken_mb > 0:
        return Devices(tuple(gpus), taken_mb, f"a worker took {taken_mb:,.0f} MB while the service curve was measured")
    reckoned_mb = CUDA_MB + COPIES * sum(read_mar(archive).sizes.values()) / 2**20
    return Devices(
        tuple(gpus), reckoned_mb, f"{reckoned_mb:,.0f} MB a worker: {COPIES:g} × the archive and {CUDA_MB:g} MB of CUDA's own"
    )
