import pytest

from marline.core import FakeGpus, Gpu, RequestError
from marline.deploy import Plan, assigned, plan
from marline.deploy._gpu import gpu_environment, told

TWO = FakeGpus(
    (
        Gpu(0, "GPU-aa", "NVIDIA T4", memory_mb=15_360, used_mb=9_360, utilisation_percent=35, temperature_c=61, power_w=48.2),
        Gpu(1, "GPU-bb", "NVIDIA T4", memory_mb=15_360, used_mb=360),
    )
)


def test_a_server_is_told_numbers_and_how_they_are_counted() -> None:
    assert {"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} == gpu_environment(TWO.gpus()[::-1])
    assert "" == gpu_environment(())["CUDA_VISIBLE_DEVICES"]


def test_without_device_ids_one_counter_for_all_models_begins_at_the_second_gpu() -> None:
    assert [1, 0, 1] == assigned(3, 2)
    assert [0, 1] == assigned(2, 2, before=3)
    assert [0, 0] == assigned(2, 1)
    assert [None, None] == assigned(2, 0)


def test_with_device_ids_a_model_counts_for_itself() -> None:
    assert [1, 0, 1] == assigned(3, 2, [1, 0], before=5)
    assert [1, 1] == assigned(2, 2, [1])


def test_a_list_with_a_gpu_that_is_not_there_is_dropped_whole() -> None:
    assert assigned(3, 2) == assigned(3, 2, [0, 2])


def test_workers_are_spread_and_the_freest_gpu_gets_the_odd_one() -> None:
    assert Plan((1, 0), (1, 0, 1)) == plan(3, 4_000, TWO.gpus())


def test_workers_stay_on_one_gpu_where_they_do_not_fit_on_both() -> None:
    assert Plan((1,), (1, 1)) == plan(2, 7_000, TWO.gpus())


def test_a_model_that_fits_nowhere_is_refused_with_what_is_free() -> None:
    with pytest.raises(
        RequestError, match=r"1 worker\(s\) of 16,000 MB each fit on no GPU \(0: NVIDIA T4 with 6,000 MB free, 1: "
    ):
        plan(1, 16_000, TWO.gpus())
    with pytest.raises(RequestError, match=r"4 worker\(s\) of 7,000 MB"):
        plan(4, 7_000, TWO.gpus())


def test_without_gpus_there_is_nothing_to_plan() -> None:
    assert Plan() == plan(2, 1e9, ())


def test_a_plan_is_what_torchserve_does_with_its_device_ids() -> None:
    for workers in range(1, 7):
        made = plan(workers, 100, TWO.gpus())
        assert list(made.devices) == assigned(workers, 2, made.device_ids)


def test_a_gpu_is_told_in_one_line_with_what_it_measures() -> None:
    assert [
        "NVIDIA T4 (9,360 of 15,360 MB taken, 35 %, 61 °C, 48 W)",
        "NVIDIA T4 (360 of 15,360 MB taken)",
    ] == [told(gpu) for gpu in TWO.gpus()]
