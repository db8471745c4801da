"""What GPUs that are not there do while something is measured."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from marline.core import FakeGpus, Gpu
from marline.tune._nvml import gpu_use

IDLE = Gpu(0, "GPU-aa", "NVIDIA T4", memory_mb=15_360, used_mb=400, utilisation_percent=0, power_w=10.0, clock_mhz=1590)
BUSY = replace(IDLE, used_mb=2_400, utilisation_percent=90, temperature_c=71, power_w=70.0, clock_mhz=900)
OTHER = Gpu(1, "GPU-bb", "NVIDIA T4", memory_mb=15_360, used_mb=300)


@dataclass
class Turning:
    """GPUs that do something else at every look."""

    turns: Iterator[tuple[Gpu, ...]]
    last: tuple[Gpu, ...] = ()
    looks: int = field(default=0)

    def gpus(self) -> tuple[Gpu, ...]:
        self.looks += 1
        self.last = next(self.turns, self.last)
        return self.last


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def looked_at(reader: Turning, looks: int) -> list[dict[str, object]]:
    with gpu_use("curve", reader, every_s=0.001) as found:
        deadline = time.monotonic() + 20
        while reader.looks < looks and time.monotonic() < deadline:
            time.sleep(0.001)
        assert [] == found
    return found


def test_every_gpu_has_one_entry_over_all_looks() -> None:
    reader = Turning(iter([(IDLE, OTHER), (BUSY, OTHER)]))  # and busy from then on

    first, second = looked_at(reader, 12)

    assert ("curve", 0, "NVIDIA T4") == (first["phase"], first["gpu"], first["name"])
    assert first["samples"] == second["samples"] == reader.looks
    share = 1 - 1 / reader.looks
    assert (round(90 * share, 1), round(10 + 60 * share, 1)) == (first["utilisation_percent"], first["power_w"])
    assert (900, 2_400, 71) == (first["lowest_clock_mhz"], first["memory_mb"], first["temperature_c"])
    assert (300, None, None) == (second["memory_mb"], second["utilisation_percent"], second["power_w"])


def test_a_gpu_that_falls_off_the_bus_keeps_what_was_seen() -> None:
    (found,) = looked_at(Turning(iter([(BUSY,), (), ()])), 4)

    assert (1, 2_400) == (found["samples"], found["memory_mb"])


def test_a_gpu_the_server_does_not_see_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")

    assert [1] == [one["gpu"] for one in looked_at(Turning(iter([(IDLE, OTHER)])), 2)]


def test_without_a_gpu_there_is_nothing_and_nobody_watches() -> None:
    reader = Turning(iter([()]))
    with gpu_use("curve", reader, every_s=0.001) as found:
        time.sleep(0.02)

    assert ([], 1) == (found, reader.looks)


def test_what_was_seen_stays_where_the_measurement_fails() -> None:
    kept: list[list[dict[str, object]]] = []

    def fail() -> None:
        with gpu_use("trial 1", FakeGpus((BUSY,))) as found:
            kept.append(found)
            raise ValueError("a trial")

    with pytest.raises(ValueError, match="a trial"):
        fail()

    assert ["trial 1"] == [one["phase"] for one in kept[0]]
