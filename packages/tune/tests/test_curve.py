from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.core import StageError
from marline.tune import Point
from marline.tune._batches import Batch, read_batches
from marline.tune._curve import _point, _whole, batch_sizes_of, is_reported


def test_batches_of_all_workers_are_read_in_the_order_they_ended(tmp_path: Path) -> None:
    (tmp_path / "11.csv").write_text("10.5,4,1.0,20.0,0.5\n12.0,1,0.2,9.0,0.1\n")
    (tmp_path / "12.csv").write_text("11.0,2,0.5,15.0,0.3\n")

    batches = read_batches(tmp_path)

    assert [(10.5, 4), (11.0, 2), (12.0, 1)] == [(batch.ended_s, batch.size) for batch in batches]
    assert pytest.approx(21.5) == batches[0].total_ms


@pytest.mark.parametrize("half", ["1", "12.0,1,0.2", "12.0,1,0.2,9.0,0.1"])
def test_a_line_that_is_being_written_is_left_for_later(half: str, tmp_path: Path) -> None:
    (tmp_path / "11.csv").write_text(f"10.5,4,1.0,20.0,0.5\n{half}")

    assert [Batch(10.5, 4, 1.0, 20.0, 0.5)] == read_batches(tmp_path)


def test_no_batch_yet_is_no_batch(tmp_path: Path) -> None:
    assert [] == read_batches(tmp_path)


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (8, [1, 2, 4, 8]), (12, [1, 2, 4, 8, 12])])
def test_every_power_of_two_is_measured_and_the_largest(largest: int, sizes: list[int]) -> None:
    assert sizes == batch_sizes_of(largest)


def test_a_point_is_of_the_worker_s_whole_time_its_stages_medians() -> None:
    batches = [Batch(float(index), 4, 1.0, float(10 * index), 2.0) for index in (1, 2, 3, 4, 5)]

    assert Point(batch=4, samples=5, p50_ms=33.0, p95_ms=53.0, pre_ms=1.0, inference_ms=30.0, post_ms=2.0) == _point(
        4, batches, "digits_cnn"
    )


@given(st.lists(st.floats(0.1, 1e4), min_size=2, max_size=40))
def test_percentiles_are_times_that_were_seen(times: list[float]) -> None:
    point = _point(2, [Batch(0.0, 2, 0.0, time, 0.0) for time in times], "digits_cnn")

    seen = {round(time, 3) for time in times}
    assert {point.p50_ms, point.p95_ms} <= seen
    assert point.p50_ms <= point.p95_ms


def test_bursts_that_never_became_batches_are_an_error_that_asks_about_the_machine() -> None:
    with pytest.raises(StageError, match="bursts of 8 requests to digits_cnn did not arrive as batches of 8"):
        _point(8, [], "digits_cnn")


def test_of_a_handler_that_does_not_report_its_batches_only_whole_times_are_known() -> None:
    point = _whole(4, [6.1, 5.9, 6.0, 9.0])

    assert Point(batch=4, samples=4, p50_ms=6.0, p95_ms=9.0) == point
    assert (None, None, None) == (point.pre_ms, point.inference_ms, point.post_ms)
    assert not is_reported([point])
    assert is_reported([_point(4, [Batch(1.0, 4, 1.0, 2.0, 3.0), Batch(2.0, 4, 1.0, 2.0, 3.0)], "digits_cnn")])
