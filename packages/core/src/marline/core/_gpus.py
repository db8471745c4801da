"""The NVIDIA GPUs of this machine, as NVML tells; nothing here needs torch or starts CUDA.

NVML counts in PCI order and knows all GPUs; a program sees those that CUDA_VISIBLE_DEVICES names, numbered anew from 0.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pynvml

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU at one moment; None for what it does not tell."""

    index: int  # NVML's
    uuid: str
    name: str
    memory_mb: int
    used_mb: int
    utilisation_percent: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    clock_mhz: int | None = None
    memory_clock_mhz: int | None = None

    @property
    def free_mb(self) -> int:
        """What a model may still take, in MB."""
        return self.memory_mb - self.used_mb


class GpuReader(Protocol):
    """Whoever knows the GPUs of a machine: `Nvml` the real ones, `FakeGpus` those of a test."""

    def gpus(self) -> tuple[Gpu, ...]:
        """All GPUs in NVML's order, read now."""


@dataclass(frozen=True, slots=True)
class FakeGpus:
    """GPUs that are not there."""

    told: tuple[Gpu, ...]

    def gpus(self) -> tuple[Gpu, ...]:
        return self.told


@dataclass(frozen=True, slots=True)
class Nvml:
    """NVIDIA's management library through its own bindings; a machine without its driver has no GPUs."""

    bindings: Any = pynvml

    def gpus(self) -> tuple[Gpu, ...]:
        try:
            self.bindings.nvmlInit()
        except self.bindings.NVMLError:  # no driver, or one that does not run
            return ()
        try:
            found = [self._gpu(index) for index in range(self.bindings.nvmlDeviceGetCount())]
        except self.bindings.NVMLError as error:
            logger.warning("NVML runs and does not say how many GPUs there are: %s", error)
            return ()
        finally:
            self.bindings.nvmlShutdown()
        return tuple(gpu for gpu in found if gpu is not None)

    def _gpu(self, index: int) -> Gpu | None:
        nvml = self.bindings
        try:
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            memory = nvml.nvmlDeviceGetMemoryInfo(device)
            name, uuid = nvml.nvmlDeviceGetName(device), nvml.nvmlDeviceGetUUID(device)
        except nvml.NVMLError as error:  # fallen off the bus, or not ours to see: nothing can run on it
            logger.warning("GPU %d is left out, NVML says: %s", index, error)
            return None
        watts = self._told(lambda: nvml.nvmlDeviceGetPowerUsage(device))
        return Gpu(
            index=index,
            uuid=uuid,
            name=name,
            memory_mb=memory.total >> 20,
            used_mb=memory.used >> 20,
            utilisation_percent=self._told(lambda: nvml.nvmlDeviceGetUtilizationRates(device).gpu),
            temperature_c=self._told(lambda: nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU)),
            power_w=None if watts is None else watts / 1000,
            clock_mhz=self._told(lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_SM)),
            memory_clock_mhz=self._told(lambda: nvml.nvmlDeviceGetClockInfo(device, nvml.NVML_CLOCK_MEM)),
        )

    def _told(self, ask: Callable[[], int]) -> int | None:
        try:
            return ask()
        except self.bindings.NVMLError:  # not every GPU measures everything
            return None


def visible(gpus: Sequence[Gpu], told: str | None) -> tuple[Gpu, ...]:
    """The GPUs that a program sees under CUDA_VISIBLE_DEVICES, in its order: all where it is unset.

    As CUDA does: numbers or the beginnings of UUIDs, and nothing from the first one on that names no GPU, or one again. Parts
    of a GPU (`MIG-...`) are not known here.
    """
    if told is None:
        return tuple(gpus)
    found: list[Gpu] = []
    for word in told.split(","):
        named = [gpu for gpu in gpus if _names(word.strip(), gpu)]
        if len(named) != 1 or named[0] in found:
            break
        found += named
    return tuple(found)


def seen_gpus(reader: GpuReader | None = None) -> tuple[Gpu, ...]:
    """The GPUs that this process, and what it starts, may use."""
    return visible((reader or Nvml()).gpus(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def _names(word: str, gpu: Gpu) -> bool:
    return word == str(gpu.index) or (word.startswith("GPU-") and gpu.uuid.startswith(word))
