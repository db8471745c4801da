"""What a worker makes of its device. What needs CUDA itself is marked `gpu`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marline.handler import FakeContext, imported

Open = Callable[..., Any]
HERE = Path(__file__).parents[1] / "src" / "marline" / "handler"
with imported(HERE, "device_use") as module:
    DeviceUse = module.DeviceUse
CPU = torch.device("cpu")
HANDLER = "import torch\nfrom base_handler import handler_factory\nhandler = handler_factory(torch.nn.Identity)\n"


@pytest.mark.parametrize("kind", ["half", "float32", "", 16, True, ["float16"]])
def test_an_unknown_type_is_refused_on_any_machine(own: Open, tmp_path: Path, kind: Any) -> None:
    instance = own(HANDLER)
    context = FakeContext(tmp_path / "archive", model_yaml_config={"handler": {"autocast": kind}})

    with pytest.raises(ValueError, match=r"handler\.autocast=.* in the model config; known are float16, bfloat16"):
        instance.initialize(context)


@pytest.mark.parametrize("gpu", [None, 0, 3])
def test_without_cuda_a_worker_runs_on_the_cpu_and_what_is_for_cuda_changes_nothing(gpu: int | None) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is CUDA")
    told = {"autocast": "float16", "channels_last": True, "pin_memory": True, "profile": True}
    threads = torch.get_num_threads()
    try:
        use = DeviceUse.of({"handler": told, "system": {"maxGPUMemory": 10**9}}, gpu)
    finally:
        torch.set_num_threads(threads)

    assert DeviceUse(CPU) == use
    tensors = (torch.ones(2), "no tensor")
    assert tensors == use.pinned(tensors)
    with use.autocast():
        assert torch.float32 == (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@pytest.mark.parametrize("asked", [None, 1, 10**6])
def test_a_worker_takes_no_more_threads_than_its_archive_asks_for(asked: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = torch.get_num_threads()
    try:
        DeviceUse.of({"maxWorkers": 1, "handler": {"threads": asked}}, None)
        found = torch.get_num_threads()
    finally:
        torch.set_num_threads(threads)

    cores = len(os.sched_getaffinity(0))
    assert found == min(cores, asked or cores)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_autocast_is_of_the_type_that_is_asked_for(kind: torch.dtype) -> None:
    """The CPU has it too, so that what CUDA is told can be seen here."""
    with DeviceUse(CPU, autocast_type=kind).autocast():
        assert kind == (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_channels_come_last_where_that_is_asked_for() -> None:
    images = torch.nn.Conv2d(3, 4, 3)

    assert not images.weight.is_contiguous(memory_format=torch.channels_last)
    assert DeviceUse(CPU, channels_last=True).laid_out(images).weight.is_contiguous(memory_format=torch.channels_last)
    assert images is DeviceUse(CPU).laid_out(images)


def test_threads_are_shared_among_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = torch.get_num_threads()
    try:
        found = [(DeviceUse.of({"maxWorkers": workers}, None), torch.get_num_threads())[1] for workers in (1, 10**6, None)]
    finally:
        torch.set_num_threads(threads)

    assert [module.cores(), 1, module.cores()] == found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_memory_of_a_gpu_is_capped_and_more_than_is_free_is_refused() -> None:
    free, _ = torch.cuda.mem_get_info(0)
    with pytest.raises(RuntimeError, match="MB free"):
        DeviceUse.of({"system": {"maxGPUMemory": (free >> 20) + 1000}}, 0)

    DeviceUse.of({"system": {"maxGPUMemory": 200}}, 0)
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(300 << 20, dtype=torch.uint8, device="cuda:0")
    torch.cuda.set_per_process_memory_fraction(1.0, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_is_the_one_torchserve_names_with_all_that_is_asked_for() -> None:
    told = {"autocast": "float16", "channels_last": True, "pin_memory": True, "profile": True}

    use = DeviceUse.of({"handler": told}, torch.cuda.device_count() - 1)

    assert DeviceUse(torch.device(f"cuda:{torch.cuda.device_count() - 1}"), torch.float16, True, True, True) == use
    assert use.pinned((torch.ones(2),))[0].is_pinned()
