"""Where a worker runs and how it shares the machine: device, threads, memory and types. Goes into every archive.

Of the model config it reads `maxWorkers`, `handler.threads`, `system.maxGPUMemory` (MB) and, for CUDA, `handler.autocast`
(float16 or bfloat16), `handler.channels_last`, `handler.pin_memory` and `handler.profile`.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

CPU = torch.device("cpu")
SMALL_S, WORTH = 0.005, 1.2  # a network this quick keeps all threads only where they are this much faster than one
TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceUse:
    """A worker's device and what is done on it; all but the device is for CUDA alone."""

    device: torch.device = CPU
    autocast_type: torch.dtype | None = None
    channels_last: bool = False
    pin_memory: bool = False
    profile: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], gpu: Any) -> "DeviceUse":
        """By the model config and the `gpu_id` TorchServe gives; takes this worker's share of threads and of GPU memory.

        ValueError for an unknown type, RuntimeError where the GPU has less memory free than is asked for.
        """
        device = torch.device(f"cuda:{gpu}" if torch.cuda.is_available() and gpu is not None else "cpu")
        told = config.get("handler") or {}
        kind = told.get("autocast")
        if kind is not None and kind not in tuple(TYPES):  # on a CPU too: the archive is meant for another machine
            raise ValueError(f"handler.autocast={kind!r} in the model config; known are {', '.join(TYPES)}")
        _take_share(config, device)
        if device.type != "cuda":
            return cls(device)
        flags = {name: bool(told.get(name)) for name in ("channels_last", "pin_memory", "profile")}
        return cls(device, TYPES.get(kind) if kind else None, **flags)

    def now(self) -> float:
        """The monotonic time; after the device's work is done where the model config asks for a profile, which costs."""
        if self.profile:
            torch.cuda.synchronize(self.device)
        return time.monotonic()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Mixed precision, where it is asked for."""
        if self.autocast_type is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast_type)

    def laid_out(self, model: Any) -> Any:
        """A model in channels-last order, where that is asked for."""
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def pinned(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arguments in memory that a GPU copies from without waiting, where that is asked for."""
        return tuple(one.pin_memory() if torch.is_tensor(one) else one for one in arguments) if self.pin_memory else arguments


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


def one_thread() -> None:
    """For threads that preprocess beside each other: torch counts its own by thread."""
    torch.set_num_threads(1)


def settle_threads(run: Callable[[int], None], batch_size: int, device: torch.device) -> None:
    """Keep one thread unless more are worth it: a small network loses more at OpenMP's barriers than it gains.

    `run` answers a batch of a size. With a load generator on the same two cores, digits_cnn at batch size 8 had a p99 of 33 ms
    on two threads, 14 on one.
    """
    many = torch.get_num_threads()
    if many == 1 or device.type != "cpu" or _quickest_s(run, 1) > SMALL_S:
        return
    fast_s = _quickest_s(run, batch_size)
    torch.set_num_threads(1)
    if _quickest_s(run, batch_size) > WORTH * fast_s:
        torch.set_num_threads(many)
    logger.info("%d of %d threads at batch size %d", torch.get_num_threads(), many, batch_size)


def _quickest_s(run: Callable[[int], None], batch_size: int) -> float:
    seconds = []
    for _ in range(5):
        began = time.monotonic()
        run(batch_size)
        seconds.append(time.monotonic() - began)
    return min(seconds)


def _take_share(config: Mapping[str, Any], device: torch.device) -> None:
    """Threads are cores / workers: TorchServe lets each use all cores. Fewer, and a cap of GPU memory, on request."""
    if "OMP_NUM_THREADS" not in os.environ:
        share = max(1, cores() // max(1, int(config.get("maxWorkers") or 1)))
        torch.set_num_threads(min(share, int((config.get("handler") or {}).get("threads") or share)))
    limit_mb = (config.get("system") or {}).get("maxGPUMemory")
    if not limit_mb or device.type != "cuda":
        return
    free, total = torch.cuda.mem_get_info(device)
    if limit_mb * 2**20 > free:
        raise RuntimeError(f"system.maxGPUMemory={limit_mb} MB in the model config, but {device} has {free >> 20} MB free")
    torch.cuda.set_per_process_memory_fraction(limit_mb * 2**20 / total, device)
