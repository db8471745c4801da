from pathlib import Path

import pytest

from marline.core import Accelerator, RequestError, accelerator_of, machine, read_config, service_curves

NO_GPU = pytest.mark.skipif(bool(machine()["gpus"]), reason="this machine has a GPU")


@NO_GPU
def test_a_gpu_that_is_not_there_is_refused_with_the_remedy(project: Path) -> None:
    config = read_config(["model=resnet50", "accelerator=cuda"]).config

    with pytest.raises(RequestError, match=r"accelerator=cuda: .* write accelerator=cpu or auto"):
        accelerator_of(config, project)


@NO_GPU
def test_auto_is_the_cpu_where_there_is_no_gpu(project: Path) -> None:
    found = accelerator_of(read_config(["model=resnet50"]).config, project)

    assert ("cpu", machine()["processor"], "cpu", ()) == (found.kind, found.name, found.device, found.points)


def test_an_emulated_accelerator_brings_its_published_points_and_scale(project: Path) -> None:
    words = ["model=resnet50", "accelerator=rn50_t4_pytorch_eager_amp", "time_scale=4"]

    found = accelerator_of(read_config(words).config, project)

    assert ("emulated", "rn50_t4_pytorch_eager_amp", "cpu", 4.0) == (found.kind, found.name, found.device, found.time_scale)
    assert (8.0, 12.82) == found.points[3]


def test_every_published_curve_can_be_emulated(project: Path) -> None:
    curves = service_curves(project)

    assert len(curves) > 5
    for key, curve in curves.items():
        points = Accelerator(kind="emulated", name=key, time_scale=1, points=curve["points"]).points
        assert sorted(dict(points)) == [batch for batch, _ in points]
        assert all(batch >= 1 and ms > 0 for batch, ms in points)


def test_an_invented_curve_with_stalls_is_called_made_up_and_brings_them(project: Path) -> None:
    found = accelerator_of(read_config(["model=resnet50", "accelerator=made_up_two_modes"]).config, project)

    assert (0.02, 8.0) == found.stalls
    stalling = {key for key, curve in service_curves(project).items() if "stalls" in curve}
    assert {"made_up_two_modes"} == stalling
