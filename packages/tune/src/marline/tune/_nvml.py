"""What the GPUs do while something is measured, as NVML tells it twice a second."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from marline.core import Gpu, GpuReader, seen_gpus

EVERY_S = 0.5
JOIN_S = 10.0  # NVML answers in milliseconds; a driver that hangs must not hang us


@contextmanager
def gpu_use(phase: str, reader: GpuReader | None = None, every_s: float = EVERY_S) -> Iterator[list[dict[str, Any]]]:
    """A list that holds, once the block is left, an entry for each GPU the server sees; none where there is no GPU.

    An entry: `phase`, `gpu`, `name`, `samples`, and over these `utilisation_percent`, `power_w` and `clock_mhz` (means),
    `lowest_clock_mhz`, `memory_mb` and `temperature_c` (the highest), and `memory_before_mb` of the first look; None for what a
    GPU does not measure.
    """
    found: list[dict[str, Any]] = []
    seen = [seen_gpus(reader)]
    if not seen[0]:
        yield found
        return
    done = threading.Event()

    def look() -> None:
        while not done.wait(every_s):
            seen.append(seen_gpus(reader))

    watcher = threading.Thread(target=look, name="marline-nvml", daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join(JOIN_S)
        found += [_summary(phase, [gpu for now in list(seen) for gpu in now if gpu.uuid == one.uuid]) for one in seen[0]]


def _summary(phase: str, told: Sequence[Gpu]) -> dict[str, Any]:
    clocks = [gpu.clock_mhz for gpu in told]
    return {
        "phase": phase,
        "gpu": told[0].index,
        "name": told[0].name,
        "samples": len(told),
        "utilisation_percent": _over(fmean, [gpu.utilisation_percent for gpu in told]),
        "power_w": _over(fmean, [gpu.power_w for gpu in told]),
        "clock_mhz": _over(fmean, clocks),
        "lowest_clock_mhz": _over(min, clocks),
        "memory_mb": _over(max, [gpu.used_mb for gpu in told]),
        "memory_before_mb": told[0].used_mb,
        "temperature_c": _over(max, [gpu.temperature_c for gpu in told]),
    }


def _over(summary: Callable[[list[float]], float], values: Sequence[float | None]) -> float | None:
    """Of what was measured; None where nothing was."""
    measured = [value for value in values if value is not None]
    return round(summary(measured), 1) if measured else None
