"""The load of a day, made and recorded."""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marline.core import PlanConfig, RequestError, read_config
from marline.plan import rates
from marline.plan._trace import recorded


def told(*words: str) -> PlanConfig:
    return read_config(["model=digits_cnn", *words]).config.plan


def write(folder: Path, lines: Sequence[str]) -> Path:
    file = folder / "trace.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.fixture(scope="module")
def one() -> PlanConfig:
    return told("plan.rps=1")


@given(rps=st.floats(1, 1e6), valley=st.floats(0.01, 0.99), growth=st.floats(0, 5))
def test_a_diurnal_day_follows_its_formula(one: PlanConfig, rps: float, valley: float, growth: float) -> None:
    minutes = rates(one.model_copy(update={"rps": rps, "valley": valley, "growth": growth}))

    assert 1440 == minutes.size
    assert math.isclose(rps * (1 + growth), minutes.max())
    assert 15 * 60 + 59 <= minutes.argmax() <= 16 * 60
    assert 3 * 60 + 59 <= minutes.argmin() <= 4 * 60
    assert math.isclose(minutes.min() / minutes.max(), valley, rel_tol=1e-3)
    assert math.isclose(minutes.mean(), rps * (1 + growth) * (1 + valley) / 2, rel_tol=1e-4)


def test_a_constant_day_is_constant() -> None:
    assert [50.0] * 120 == rates(told("plan.rps=50", "plan.trace=constant", "plan.hours=2")).tolist()


def test_timestamps_are_counted_by_the_minute_and_played_again(tmp_path: Path) -> None:
    file = write(tmp_path, [*(str(second) for second in range(60)), *(str(60 + second / 2) for second in range(120)), "120"])

    assert [1.0, 2.0] == recorded(file).tolist()
    assert [1.0, 2.0] * 30 == rates(told(f"plan.trace={file}", "plan.hours=1")).tolist()
    assert [50.0, 100.0] * 30 == rates(told(f"plan.trace={file}", "plan.hours=1", "plan.rps=100")).tolist()


def test_a_recording_of_less_than_a_minute_is_its_rate(tmp_path: Path) -> None:
    assert [2.0] == recorded(write(tmp_path, [str(second / 2) for second in range(21)])).tolist()
    assert [30.0] == recorded(write(tmp_path, ["0,20", "10,40"])).tolist()


def test_rates_hold_until_the_next_and_the_last_as_long_as_the_one_before(tmp_path: Path) -> None:
    lines = ["time,requests per second", "2026-01-02T00:00:00Z,10", "2026-01-02T00:01:30Z,40", "2026-01-02T00:03:00Z,20"]

    assert [10.0, 25.0, 40.0, 20.0] == recorded(write(tmp_path, lines)).tolist()


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e5), min_size=2, max_size=50), st.integers(1, 400))
def test_no_request_is_lost_when_rates_become_minutes(rows: list[float], step_s: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        minutes = recorded(write(Path(folder), [f"{place * step_s},{rate!r}" for place, rate in enumerate(rows)]))
    seconds = np.repeat(rows, step_s)[: minutes.size * 60] if len(rows) * step_s >= 60 else np.repeat(rows, step_s)

    assert math.isclose(minutes.mean(), seconds.mean(), rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["1", "two"], "line 2 is 'two'; expected a timestamp"),
        (["1,5", "2,-5"], "line 2 is '2,-5'"),
        (["1,5", "2,nan"], "line 2 is '2,nan'"),
        (["1,5", "2"], "line 2 has another number of columns"),
        (["1"], "1 line(s), no time between them"),
        (["5", "5"], "2 line(s), no time between them"),
        (["0", "1e9"], "168 h are the most"),
        (["1" * 200], "line 1 is beyond"),
        (["time,rate"], "0 line(s)"),
    ],
)
def test_what_is_no_recording_is_refused_with_its_line(tmp_path: Path, lines: list[str], said: str) -> None:
    with pytest.raises(RequestError) as error:
        recorded(write(tmp_path, lines))

    assert said in str(error.value)


def test_a_day_without_a_rate_or_without_a_request_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"plan\.rps is not set"):
        rates(told("plan.trace=diurnal"))
    with pytest.raises(RequestError, match="holds no request"):
        rates(told(f"plan.trace={write(tmp_path, ['0,0', '60,0'])}"))


def test_a_trace_that_is_neither_a_name_nor_a_file_is_refused() -> None:
    with pytest.raises(RequestError, match=r"plan\.trace = 'weekly' from the command line is refused: there is no such file"):
        told("plan.trace=weekly")
