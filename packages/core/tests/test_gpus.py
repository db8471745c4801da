from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from marline.core import FakeGpus, Gpu, Nvml, seen_gpus, visible

LOST, UNKNOWN = pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_NotSupported
FIRST = Gpu(0, "GPU-aa11", "NVIDIA T4", memory_mb=15_360, used_mb=360)
SECOND = Gpu(1, "GPU-ab22", "NVIDIA A10", memory_mb=23_028, used_mb=0)
TWO = (FIRST, SECOND)


@dataclass
class Bindings:
    """What we call of NVML, on a machine with these GPUs; an exception in place of a value is raised."""

    devices: Sequence[dict[str, Any]]
    starts: bool = True
    running: int = 0
    NVMLError: type[Exception] = field(default=pynvml.NVMLError, repr=False)

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.starts:
            raise pynvml.NVMLError_LibraryNotFound
        self.running += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.running -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802
        return self.devices[index]

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvmlDeviceGet"):
            return getattr(pynvml, name)

        def get(device: dict[str, Any], *more: Any) -> Any:
            value = device["-".join([name.removeprefix("nvmlDeviceGet"), *map(str, more)])]
            if isinstance(value, type):
                raise value
            return value

        return get


def device(**other: Any) -> dict[str, Any]:
    return {
        "Name": "NVIDIA T4",
        "UUID": "GPU-aa11",
        "MemoryInfo": SimpleNamespace(total=15_360 << 20, used=360 << 20),
        "UtilizationRates": SimpleNamespace(gpu=35),
        f"Temperature-{pynvml.NVML_TEMPERATURE_GPU}": 61,
        "PowerUsage": 48_200,
        f"ClockInfo-{pynvml.NVML_CLOCK_SM}": 1590,
        f"ClockInfo-{pynvml.NVML_CLOCK_MEM}": 5000,
        **other,
    }


def test_a_gpu_is_read_in_our_units() -> None:
    bindings = Bindings([device()])

    assert (Gpu(0, "GPU-aa11", "NVIDIA T4", 15_360, 360, 35, 61, 48.2, 1590, 5000),) == Nvml(bindings).gpus()
    assert 0 == bindings.running


def test_what_a_gpu_does_not_measure_is_none_and_the_rest_is_read() -> None:
    told = device(PowerUsage=UNKNOWN, UtilizationRates=UNKNOWN)

    (gpu,) = Nvml(Bindings([told])).gpus()

    assert (None, None, 61, 15_000) == (gpu.power_w, gpu.utilisation_percent, gpu.temperature_c, gpu.free_mb)


def test_a_lost_gpu_is_left_out_and_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    found = Nvml(Bindings([device(MemoryInfo=LOST), device(UUID="GPU-ab22")])).gpus()

    assert [1] == [gpu.index for gpu in found]
    assert "GPU 0 is left out" in caplog.text


def test_a_machine_without_a_driver_has_no_gpus() -> None:
    assert () == Nvml(Bindings([device()], starts=False)).gpus()


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, TWO),
        ("", ()),
        ("-1", ()),
        ("0,1", TWO),
        ("1, 0", (SECOND, FIRST)),
        ("1", (SECOND,)),
        ("GPU-ab", (SECOND,)),
        ("GPU-a", ()),
        ("0,7,1", (FIRST,)),
        ("0,0", (FIRST,)),
    ],
)
def test_a_program_sees_what_cuda_visible_devices_names(told: str | None, expected: tuple[Gpu, ...]) -> None:
    assert expected == visible(TWO, told)


def test_this_process_sees_what_its_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    assert (SECOND,) == seen_gpus(FakeGpus(TWO))
