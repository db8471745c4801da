import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.core import RequestError
from marline.loadtest import Load, arrival_times, phases
from marline.loadtest._load import SHAPES, Arrivals, too_few_users
from marline.loadtest._replay import own_rate, read_timestamps

DRAWN = ["poisson", "constant", "bursty"]
LOADS = st.builds(
    Load,
    rps=st.floats(0.5, 500),
    seconds=st.floats(0.5, 20),
    warmup_s=st.floats(0, 5),
    arrivals=st.sampled_from(DRAWN),
    seed=st.integers(0, 2**32),
    timeout_s=st.just(1.0),
    shape=st.sampled_from(sorted(SHAPES)),
)
LOAD = Load(rps=100, seconds=200, warmup_s=0, arrivals="poisson", seed=1, timeout_s=1)


@given(LOADS)
def test_arrivals_are_in_order_and_within_the_time(load: Load) -> None:
    times = arrival_times(load)

    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times < load.warmup_s + load.seconds))


@given(LOADS)
def test_a_seed_gives_the_same_arrivals_again(load: Load) -> None:
    assert np.array_equal(arrival_times(load), arrival_times(load))


@given(LOADS)
def test_each_phase_has_the_requests_of_its_rate(load: Load) -> None:
    times, told = arrival_times(load), phases(load)

    assert [load.warmup_s, load.end_s] == [told[0].begin_s, told[-1].end_s]
    for phase in told:
        count = np.count_nonzero((times >= phase.begin_s) & (times < phase.end_s))
        assert abs(count - max(1, phase.rps * (phase.end_s - phase.begin_s))) <= 1.0001


@pytest.mark.parametrize(("arrivals", "expected"), [("poisson", 1.0), ("constant", 0.0), ("bursty", 2.0)])
def test_gaps_vary_as_is_said(arrivals: Arrivals, expected: float) -> None:
    gaps = np.diff(arrival_times(dataclasses.replace(LOAD, arrivals=arrivals)))

    assert abs(gaps.mean() * LOAD.rps - 1) < 0.03
    assert abs(gaps.std() / gaps.mean() - expected) < 0.05


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(arrival_times(LOAD))

    assert abs((gaps > 2 / LOAD.rps).mean() - np.exp(-2)) < 0.01


def test_bursty_arrivals_crowd_more_than_poisson_s() -> None:
    def crowding(arrivals: Arrivals) -> float:
        counts = np.histogram(arrival_times(dataclasses.replace(LOAD, arrivals=arrivals)), bins=200)[0]
        return float(counts.var() / counts.mean())  # 1 for Poisson's, the square of the coefficient of variation for long bins

    assert 0.8 < crowding("poisson") < 1.25
    assert 3 < crowding("bursty") < 5


def test_constant_gaps_are_equal() -> None:
    load = Load(rps=50, seconds=2, warmup_s=1, arrivals="constant", seed=0, timeout_s=1)

    times = arrival_times(load)

    assert 150 == times.size
    assert np.allclose(np.diff(times), 0.02)


def test_another_seed_gives_other_arrivals() -> None:
    assert arrival_times(LOAD).tolist() != arrival_times(dataclasses.replace(LOAD, seed=2)).tolist()


def test_a_sweep_comes_down_as_it_went_up_and_a_spike_is_three_times_as_high() -> None:
    sweep = [phase.rps for phase in phases(dataclasses.replace(LOAD, shape="sweep"))]
    spike = [phase.rps for phase in phases(dataclasses.replace(LOAD, shape="spike"))]

    assert [25, 50, 75, 100, 75, 50, 25] == sweep
    assert [100, 300, 100] == spike


def test_users_need_no_schedule() -> None:
    assert 0 == arrival_times(dataclasses.replace(LOAD, users=8)).size


@pytest.mark.parametrize(
    ("users", "batch_size", "words"), [(4, 8, "48 users"), (15, 8, "48 users"), (16, 8, None), (4, None, None), (0, 8, None)]
)
def test_users_who_cannot_fill_a_batch_are_told_how_many_can(users: int, batch_size: int | None, words: str | None) -> None:
    told = too_few_users(users, batch_size, 2)

    assert told is None if words is None else words in (told or "")


def test_a_recording_is_played_from_its_start_at_its_own_rate(tmp_path: Path) -> None:
    file = tmp_path / "times.txt"
    file.write_text("1000.5\n\n1000.0\n1002.0\n")

    times = arrival_times(replayed(file, rps=own_rate(file), seconds=3))

    assert 1.0 == own_rate(file)
    assert [0.0, 0.5, 2.0] == times.tolist()


def test_a_recording_is_scaled_and_played_again_where_it_is_too_short(tmp_path: Path) -> None:
    file = tmp_path / "times.txt"
    file.write_text("2026-01-02T03:04:05Z\n2026-01-02T03:04:05.500+00:00\n2026-01-02 03:04:07\n")

    times = arrival_times(replayed(file, rps=2.0, seconds=3))

    assert np.allclose([0, 0.25, 1.0, 1.5, 1.75, 2.5], times)  # three requests last 1.5 s at 2/s


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"1\n2\nsoon\n", "line 3 is b'soon'"),
        (b"1\nnan\n", "line 2"),
        (b"1\ninf\n", "line 2"),
        (b"1\n1_0\n", "line 2"),
        (b"1\n2026-01-02T03:04:05\n", "line 2 is in ISO 8601, the lines before it are not"),
        (b"1\n2026-13-02\n", "line 2"),
        (b"1\n\xff\xfe\n", "line 2"),
        (b"1\n" + b"9" * 10_000_000, "line 2 is longer than 100 bytes"),
        (b"1 2\n", "line 1"),
        (b"1\n", "1 timestamp"),
        (b"", "0 timestamp"),
        (b"3\n3\n", "no time between them"),
    ],
)
def test_a_recording_that_is_none_is_refused_with_its_line(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "times.txt"
    file.write_bytes(content)

    with pytest.raises(RequestError) as refused:
        read_timestamps(file)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_device_is_no_recording() -> None:
    with pytest.raises(RequestError, match="is no file"):
        read_timestamps(Path("/dev/zero"))


def test_replay_without_a_recording_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="replay=FILE"):
        arrival_times(dataclasses.replace(LOAD, arrivals="replay"))


def replayed(file: Path, rps: float, seconds: float) -> Load:
    return Load(rps=rps, seconds=seconds, warmup_s=0, arrivals="replay", seed=0, timeout_s=1, replay=file)
