"""How few trials are placed: what is known of a limit, and where the next trial says most."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.tune import Point, Service, Setting, predict, simulate
from marline.tune._look import look_for_rate, rival_of
from marline.tune._predict import BELOW, CLOSE, REACH, Bounds, Forecaster
from marline.tune._refit import Seen, agrees
from marline.tune._runner import decisive
from marline.tune._service import Stages

ONE, FOUR = Setting(1, 100, 1), Setting(4, 2, 1)
SETTINGS = [Setting(1, 100, 1), *(Setting(size, delay, 1) for size in (4, 16) for delay in (2, 10))]


def stalls(point: Point) -> tuple[Stages, ...]:
    """Its stages, of which one in fifty takes six times as long in the device."""
    return tuple((pre, 6 * ms if row % 50 == 0 else ms, post) for row, (pre, ms, post) in enumerate(point.stages_ms * 5))


@pytest.fixture
def forecast(service: Service) -> Forecaster:
    return Forecaster(service, SETTINGS, 100.0, 99)


@given(predicted=st.floats(1, 1e4), off=st.floats(0.05, 20))
def test_trials_close_in_on_a_limit_wherever_it_is(predicted: float, off: float) -> None:
    """The prediction follows what is seen, as the twin does when it is fitted anew."""
    bounds, real = Bounds(), off * predicted
    for _ in range(60):
        rate = bounds.next_rate(predicted)
        if rate is None:
            break
        bounds.learn(rate, held=rate <= real)
        predicted = bounds.limit(predicted)

    assert 0 < bounds.low <= real
    assert bounds.next_rate(predicted) is None
    assert bounds.high <= CLOSE * bounds.low or bounds.low >= 0.9 * predicted


def test_a_first_trial_is_below_the_predicted_limit_and_a_second_above_it() -> None:
    bounds = Bounds()

    assert bounds.next_rate(100.0) == pytest.approx(BELOW * 100)
    bounds.learn(BELOW * 100, held=True)
    assert bounds.next_rate(100.0) == pytest.approx(105.0)
    bounds.learn(105.0, held=False)
    assert bounds.next_rate(100.0) is None
    assert bounds.limit(120.0) == pytest.approx(105.0)


def test_of_two_trials_that_contradict_each_other_the_later_is_believed() -> None:
    bounds = Bounds()
    bounds.learn(90.0, held=True)
    bounds.learn(80.0, held=False)

    assert (0.0, 80.0) == (bounds.low, bounds.high)
    bounds.learn(85.0, held=True)
    assert (85.0, math.inf) == (bounds.low, bounds.high)


def test_among_equals_less_delay_and_smaller_batches_come_first(forecast: Forecaster) -> None:
    ranked = forecast.by_rate()

    assert Setting(16, 2, 1) == ranked[0]
    assert Setting(4, 2, 1) == rival_of(ranked)


def test_without_trust_in_the_twin_only_what_was_measured_counts(service: Service) -> None:
    forecast = Forecaster(service, SETTINGS, 100.0, 99, trusted=False)

    assert [] == forecast.by_rate() == forecast.by_latency(10.0, cheapest=False)


def test_what_is_promised_leaves_room_for_what_a_trial_did_not_meet(forecast: Forecaster) -> None:
    for setting in SETTINGS:
        assert 0 < forecast.safe_rps(setting) <= 0.92 * forecast.limit_rps(setting)


def test_a_short_trial_beyond_the_limit_that_held_raises_no_promise(forecast: Forecaster) -> None:
    """A queue that grows slowly had no time to: where the next trial is made follows it, what is promised does not."""
    safe_rps, told_rps = forecast.safe_rps(FOUR), forecast.told[FOUR].rps

    forecast.bounds[FOUR] = Bounds(low=1.05 * told_rps)

    assert 1.05 * told_rps == forecast.limit_rps(FOUR)
    assert safe_rps == forecast.safe_rps(FOUR) <= 0.92 * told_rps


@pytest.mark.parametrize(("off", "share"), [(0.5, 0.2), (0.5, 0.9), (1.5, 0.2), (1.5, 0.9)])
def test_a_correction_upwards_goes_little_beyond_what_was_tried(
    forecast: Forecaster, service: Service, off: float, share: float
) -> None:
    setting = Setting(4, 2, 1)
    (twin,) = predict(service, [setting], 100.0, 99)
    arrivals_s = np.cumsum(np.random.default_rng(3).exponential(1 / (share * twin.rps), 2000))
    rate = (arrivals_s.size - 501) / (arrivals_s[-1] - arrivals_s[500])
    warm = 500  # requests that came before those that were judged
    forecast.seen.append(Seen(setting, arrivals_s, off * simulate(service, setting, arrivals_s)[warm:], warm=warm))

    forecast._correct(setting)

    told = forecast.told[setting]
    assert told.rps <= (twin.rps if off > 1 else max(twin.rps, REACH * rate) + 1e-6)
    assert (told.rps > twin.rps) == (off < 1 and REACH * rate > twin.rps)
    assert told.p99_ms <= 1.01 * 100.0


@pytest.mark.parametrize(("held", "steps", "trials"), [(True, 4, 3), (False, 4, 4), (True, 1, 1)])
def test_the_search_leaves_its_last_trial_to_a_confirmation_that_misses(
    forecast: Forecaster, held: bool, steps: int, trials: int
) -> None:
    """Where the best has held near its limit; a search of one trial makes that in any case."""
    tried: list[float] = []

    def run(setting: Setting, rps: float) -> Any:
        tried.append(rps)
        forecast.bounds.setdefault(setting, Bounds()).learn(rps, held=held)

    look_for_rate(forecast, run, steps, lambda: True)

    assert trials == len(tried)


@pytest.mark.parametrize(
    ("setting", "requests", "share"), [(ONE, 250, 0.25), (ONE, 1000, 1.0), (ONE, 4000, 1.0), (FOUR, 1000, 0.28)]
)
def test_a_low_tail_of_few_batches_is_believed_in_part(
    forecast: Forecaster, service: Service, setting: Setting, requests: int, share: float
) -> None:
    (twin,) = predict(service, [setting], 100.0, 99)
    arrivals_s = np.cumsum(np.random.default_rng(5).exponential(1 / (0.9 * twin.rps), requests))
    forecast.seen.append(Seen(setting, arrivals_s, 0.8 * simulate(service, setting, arrivals_s)))

    forecast._correct(setting)

    assert 0.8**share == pytest.approx(forecast.off[setting], rel=0.01)
    assert twin.rps < forecast.told[setting].rps


def test_where_no_rate_leaves_room_the_confirmation_decides(service: Service) -> None:
    (lone,) = predict(service, [ONE], 1e3, 99)
    slo_ms = 1.05 * simulate(service, ONE, np.arange(1000) / (0.05 * lone.rps)).max()

    forecast = Forecaster(service, [ONE], float(slo_ms), 99)

    assert 0.92 * forecast.limit_rps(ONE) == forecast.safe_rps(ONE) > 0


def test_where_a_batch_stalls_now_and_then_fewer_are_late_than_may_be(service: Service) -> None:
    """The rate that is promised leaves a third of the late requests that the objective allows."""
    stalling = replace(service, points=tuple(replace(one, stages_ms=stalls(one)) for one in service.points))
    forecast = Forecaster(stalling, [FOUR], 100.0, 99)

    safe_rps = forecast.safe_rps(FOUR)

    limits = [predict(stalling, [FOUR], 100.0, 99 + 2 / 3, seed=seed)[0].rps for seed in range(3)]
    assert len(set(limits)) > 1
    assert min(limits) == safe_rps < 0.8 * forecast.limit_rps(FOUR)


def test_a_tail_lower_than_the_twins_raises_the_limit_and_not_what_leaves_room(service: Service) -> None:
    """Late requests come with stalls, of which a short trial may have met few."""
    stalling = replace(service, points=tuple(replace(one, stages_ms=stalls(one)) for one in service.points))
    forecast = Forecaster(stalling, [FOUR], 100.0, 99)
    safe_rps, limit_rps = forecast.safe_rps(FOUR), forecast.limit_rps(FOUR)
    arrivals_s = np.cumsum(np.random.default_rng(5).exponential(1 / limit_rps, 4000))
    forecast.seen.append(Seen(FOUR, arrivals_s, 0.8 * simulate(stalling, FOUR, arrivals_s)))

    forecast._correct(FOUR)

    assert limit_rps < forecast.limit_rps(FOUR)
    assert safe_rps == forecast.safe_rps(FOUR)


def test_what_the_warm_up_left_in_the_queue_is_no_error_of_the_twin(service: Service) -> None:
    """A trial above what is carried: those that were judged began behind a backlog."""
    setting = Setting(1, 100, 1)
    (twin,) = predict(service, [setting], 100.0, 99)
    arrivals_s = np.cumsum(np.random.default_rng(4).exponential(1 / (1.2 * twin.saturated_rps), 1000))
    warm = 400
    shown_ms = simulate(service, setting, arrivals_s, seed=5)[warm:]

    assert agrees(service, Seen(setting, arrivals_s, shown_ms, warm=warm))
    assert not agrees(service, Seen(setting, arrivals_s[warm:], shown_ms))


def test_a_share_of_the_latency_is_worth_a_share_of_the_rate(forecast: Forecaster, service: Service) -> None:
    setting = SETTINGS[0]
    least, more = (predict(service, [setting], slo_ms, 99)[0].rps for slo_ms in (100.0, 120.0))

    assert 0.0 == forecast.worth(setting, 1.0)
    assert more / least - 1 == pytest.approx(forecast.worth(setting, 1.2))


def test_a_quicker_setting_comes_first_at_a_rate_and_a_cheaper_one_where_cost_counts(service: Service) -> None:
    settings = [Setting(4, 2, workers) for workers in (1, 2)]
    forecast = Forecaster(service, settings, 100.0, 99)

    def first(rps: float, *, cheapest: bool) -> Sequence[Setting]:
        return forecast.by_latency(rps, cheapest=cheapest)[:1]

    rps = 0.8 * forecast.limit_rps(settings[0])
    assert [Setting(4, 2, 2)] == first(rps, cheapest=False)
    assert [Setting(4, 2, 1)] == first(rps, cheapest=True)


@pytest.mark.parametrize(("percentile", "confidence", "least", "most"), [(99, 0.99, 2100, 2200), (95, 0.95, 200, 300)])
def test_so_many_requests_are_asked_for_a_proof(percentile: float, confidence: float, least: int, most: int) -> None:
    assert least < decisive(percentile, confidence) < most
