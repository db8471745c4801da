from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.tune import Point
from marline.tune._batches import Batch, read_batches
from marline.tune._curve import _apart, batch_sizes_of, is_reported


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


def test_a_point_keeps_every_batch_and_says_its_medians() -> None:
    stages = [(1.0, float(10 * index), 2.0) for index in (1, 2, 3, 4, 5)]

    point = Point.of(4, stages)

    assert (4, 5, 33.0, 53.0) == (point.batch, point.samples, point.p50_ms, point.p95_ms)
    assert (1.0, 30.0, 2.0) == (point.pre_ms, point.inference_ms, point.post_ms)
    assert tuple(stages) == point.stages_ms
    assert [list(stage) for stage in stages] == point.rows_ms.tolist()


@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=40))
def test_percentiles_are_times_that_were_seen(times: list[float]) -> None:
    point = Point.of(2, [(0.0, time, 0.0) for time in times])

    seen = {round(time, 3) for time in times}
    assert {point.p50_ms, point.p95_ms} <= seen
    assert point.p50_ms <= point.p95_ms


def test_of_a_handler_that_does_not_report_its_batches_only_whole_times_are_known() -> None:
    point = Point.of(4, [(0.0, ms, 0.0) for ms in (6.1, 5.9, 6.0, 9.0)], reported=False)

    assert (6.0, 9.0) == (point.p50_ms, point.p95_ms)
    assert (None, None, None) == (point.pre_ms, point.inference_ms, point.post_ms)
    assert [6.1, 5.9, 6.0, 9.0] == point.rows_ms[:, 1].tolist()
    assert not is_reported([point])
    assert is_reported([Point.of(4, [(1.0, 2.0, 3.0)])])


@given(batch_ms=st.floats(0.1, 10), request_ms=st.floats(0, 2), largest=st.sampled_from([2, 8, 64]))
def test_gaps_of_two_sizes_tell_what_a_batch_costs_and_what_a_request(batch_ms: float, request_ms: float, largest: int) -> None:
    gaps = {size: batch_ms + request_ms * size for size in (1, largest)}

    assert (batch_ms, request_ms) == pytest.approx(_apart(gaps), abs=1e-6)


@given(st.dictionaries(st.integers(1, 128), st.floats(0, 50), max_size=4))
def test_no_gaps_make_an_overhead_less_than_nothing(gaps: dict[int, float]) -> None:
    batch_ms, request_ms = _apart(gaps)

    assert batch_ms >= 0
    assert request_ms >= 0
    if len(gaps) > 1:
        assert min(gaps.values()) - 1e-3 <= batch_ms + request_ms * max(gaps)
