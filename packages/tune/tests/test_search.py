import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marline.core import read_config
from marline.tune import Point, Setting, capacity_rps, climb, grid, search
from marline.tune._search import BEAT, FIRST, default_of, next_rate

SETTINGS = [Setting(size, delay, 1) for size in (2, 4, 8) for delay in (2, 10)]
SLO_MS = 50.0
CAPACITIES = st.lists(st.floats(5, 2000), min_size=len(SETTINGS), max_size=len(SETTINGS))
STEPS = st.integers(1, 8)
REUSED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(("words", "workers"), [("2", 2), ("[4,2]", 2)])
def test_the_default_is_torchserve_s_own_with_the_fewest_workers(words: str, workers: int) -> None:
    config = read_config(["model=digits_cnn", f"tune.workers={words}"]).config.tune

    assert Setting(1, 100, workers) == default_of(config)


def test_every_combination_is_tried_once_and_a_batch_of_one_waits_for_nobody() -> None:
    words = ["model=digits_cnn", "tune.max_batch_delays_ms=[10,2]", "tune.workers=[1,2]"]
    config = read_config(words).config.tune

    found = grid(config, [4, 1, 4])

    pairs = [(1, 100, 2), *((4, delay, workers) for delay in (2, 10) for workers in (1, 2))]
    assert [Setting(*one) for one in pairs] == found


@pytest.mark.parametrize(("batch_size", "measured_rps"), [(1, 66), (8, 342)])
def test_the_capacity_is_near_what_was_once_measured(batch_size: int, measured_rps: float, curve: Sequence[Point]) -> None:
    """The rows of the reference on TorchServe, section 4; its fit is within 11 %."""
    assert measured_rps == pytest.approx(capacity_rps(curve, Setting(batch_size, 5, 1)), rel=0.11)


def test_workers_multiply_the_capacity(curve: Sequence[Point]) -> None:
    assert 3 * capacity_rps(curve, Setting(4, 5, 1)) == pytest.approx(capacity_rps(curve, Setting(4, 5, 3)))


def test_a_size_between_two_points_counts_as_the_larger(curve: Sequence[Point]) -> None:
    assert capacity_rps(curve, Setting(3, 5, 1)) == pytest.approx(1e3 * 3 / (14.0 + 4.0 + 0.4 * 3))


@given(low=st.floats(1, 1e4), factor=st.floats(1.01, 100))
def test_the_next_rate_is_between_the_one_that_passed_and_the_one_that_failed(low: float, factor: float) -> None:
    assert low < next_rate(low, low * factor) < low * factor
    assert low < next_rate(low, math.inf) < next_rate(low, math.inf, slack=5.0)
    assert 0 < next_rate(0.0, low) < low


@REUSED
@given(capacity=st.floats(5, 2000), first=st.floats(1, 3000), steps=STEPS)
def test_a_climb_returns_the_best_it_saw_and_never_takes_more_steps(
    capacity: float, first: float, steps: int, formula: Any
) -> None:
    server = formula(lambda _: capacity)

    best = climb(SETTINGS[0], first, SLO_MS, steps, 0.0, server.run)

    within = [trial for trial in server.trials if trial.within(SLO_MS)]
    assert max(within, key=lambda trial: trial.offered_rps, default=None) == best
    assert 1 <= len(server.trials) <= steps


@REUSED
@given(capacities=CAPACITIES, steps=STEPS)
def test_a_search_tries_every_setting_and_keeps_the_best_of_each(
    capacities: list[float], steps: int, formula: Any, curve: Sequence[Point]
) -> None:
    real = dict(zip(SETTINGS, capacities, strict=True))
    server = formula(real.__getitem__)

    best = search(SETTINGS, curve, SLO_MS, steps, server.run)

    counts = Counter(trial.setting for trial in server.trials)
    assert set(SETTINGS) == counts.keys()
    assert max(counts.values()) <= steps
    for setting in SETTINGS:
        within = [trial.offered_rps for trial in server.trials if trial.setting == setting and trial.within(SLO_MS)]
        assert max(within, default=None) == (best[setting].offered_rps if setting in best else None)


def test_a_setting_that_cannot_win_costs_one_trial(formula: Any, curve: Sequence[Point]) -> None:
    server = formula(lambda setting: capacity_rps(curve, setting))

    search(SETTINGS, curve, SLO_MS, 6, server.run)

    counts = Counter(trial.setting for trial in server.trials)
    assert [1, 1] == [counts[Setting(2, delay, 1)] for delay in (2, 10)]


def test_the_most_promising_goes_first_and_the_next_must_beat_it(formula: Any, curve: Sequence[Point]) -> None:
    server = formula(lambda setting: capacity_rps(curve, setting))

    search([Setting(8, 2, 1), Setting(8, 10, 1), Setting(2, 2, 1)], curve, SLO_MS, 6, server.run)

    first = server.trials[0]
    begun = next(trial for trial in server.trials if trial.setting == Setting(8, 10, 1))
    won = max(trial.offered_rps for trial in server.trials if trial.setting == Setting(8, 2, 1) and trial.within(SLO_MS))
    assert (Setting(8, 2, 1), pytest.approx(FIRST * capacity_rps(curve, first.setting))) == (first.setting, first.offered_rps)
    assert pytest.approx(BEAT * won) == begun.offered_rps


def test_an_invalid_trial_is_repeated_at_its_rate_once_and_then_at_a_lower_one(formula: Any) -> None:
    server = formula(lambda _: 1000.0, invalid_from_rps=60.0)

    best = climb(SETTINGS[0], 100.0, SLO_MS, 3, 0.0, server.run)

    assert [100.0, 100.0, 70.0, 70.0, 49.0] == [pytest.approx(trial.offered_rps) for trial in server.trials]
    assert server.trials[-1] == best


def test_what_cannot_beat_the_best_so_far_is_given_up(formula: Any) -> None:
    server = formula(lambda _: 100.0)

    climb(SETTINGS[0], 100.0, SLO_MS, 8, 99.0, server.run)

    assert 1 == len(server.trials)


def test_a_search_out_of_time_tries_every_setting_once(formula: Any, curve: Sequence[Point]) -> None:
    server = formula(lambda setting: capacity_rps(curve, setting))

    search(SETTINGS, curve, SLO_MS, 6, server.run, in_time=lambda: False)

    assert Counter(SETTINGS) == Counter(trial.setting for trial in server.trials)


@given(high=st.floats(1, 1e4), beaten=st.floats(0, 2))
def test_no_rate_is_tried_that_cannot_win(high: float, beaten: float) -> None:
    to_beat = beaten * high

    rate = next_rate(0.0, high, to_beat_rps=to_beat)

    assert min(BEAT * to_beat, high) <= rate <= high
