"""Which worker runs on which GPU, as TorchServe 0.12 decides it, and whether the model fits there.

A device id is a place among the GPUs the server sees (CUDA_VISIBLE_DEVICES), not NVML's index. TorchServe counts the words of
that variable, `-1` too, does not start where one is no number, and where it is empty counts what nvidia-smi shows; so it is
told both, the numbers and how many. A worker keeps its GPU when it is restarted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from marline.core import Gpu, RequestError


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write as `deviceIds`, and the GPU each worker then gets; both empty where the CPU serves."""

    device_ids: tuple[int, ...] = ()
    devices: tuple[int, ...] = ()


def gpu_environment(gpus: Sequence[Gpu]) -> dict[str, str]:
    """What a server that is to see these GPUs is told: numbers, and that they are NVML's (CUDA's begin with the fastest)."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(str(gpu.index) for gpu in gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def assigned(workers: int, gpus: int, device_ids: Sequence[int] = (), *, before: int = 0) -> list[int | None]:
    """The GPU of each of a model's first workers, None for the CPU.

    With `device_ids` a model counts for itself and begins with the first. Without, all models of a server share one counter,
    which begins at 1: `before` says how many workers got theirs from it already.
    """
    if gpus == 0:
        return [None] * workers
    if device_ids and all(0 <= one < gpus for one in device_ids):  # TorchServe drops the whole list for one that is not there
        return [device_ids[turn % len(device_ids)] for turn in range(workers)]
    return [(1 + before + turn) % gpus for turn in range(workers)]


def plan(workers: int, model_mb: float, gpus: Sequence[Gpu]) -> Plan:
    """Spread workers over as many GPUs as they fit on, the freest first; RequestError where they fit on none.

    `gpus` are those the server sees, `model_mb` is what one worker takes on its GPU: weights, batch and CUDA's own part.
    """
    if not gpus:
        return Plan()
    freest = sorted(range(len(gpus)), key=lambda place: -gpus[place].free_mb)
    for count in range(min(workers, len(gpus)), 0, -1):
        ids = tuple(freest[:count])
        devices = [one for one in assigned(workers, len(gpus), ids) if one is not None]
        if all(devices.count(place) * model_mb <= gpus[place].free_mb for place in ids):
            return Plan(ids, tuple(devices))
    free = ", ".join(f"{place}: {gpu.name} with {gpu.free_mb:,} MB free" for place, gpu in enumerate(gpus))
    raise RequestError(
        f"{workers} worker(s) of {model_mb:,.0f} MB each fit on no GPU ({free}); "
        "ask for fewer workers, a smaller batch or accelerator=cpu"
    )


def told(gpu: Gpu) -> str:
    """A GPU in one line: what it is and how it stands."""
    parts = [f"{gpu.used_mb:,} of {gpu.memory_mb:,} MB taken"]
    measured = (
        (gpu.utilisation_percent, "%"),
        (gpu.temperature_c, "°C"),
        (gpu.power_w, "W"),
        (gpu.clock_mhz, "MHz"),
    )
    parts += [f"{value:.0f} {unit}" for value, unit in measured if value is not None]
    return f"{gpu.name} ({', '.join(parts)})"
