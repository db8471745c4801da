"""The twin against theory, and what it promises: determinism, and predictions that hold when they are played."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marline.loadtest import percentile
from marline.tune import Point, Seen, Service, Setting, at_rate, predict, refit, simulate
from marline.tune._batches import Batch
from marline.tune._refit import tail, under_load
from marline.tune._twin import play, saturated_rps

SIZES = (1, 2, 4, 8, 16)
SLO_MS = 100.0


def service(**changed: object) -> Service:
    """10 ms and 1 ms a request in the model, 0.2 ms a request before it, and some overhead."""
    points = tuple(Point(b, 30, 10.2 + 1.2 * b, 12.0 + b, 0.2 * b, 10.0 + b, 0.2) for b in SIZES)
    return replace(Service(points=points, batch_ms=1.0, request_ms=0.1, http_ms=1.5, shared=True), **changed)  # type: ignore[arg-type]


def poisson(rps: float, count: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rps, count))


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_batches_of_one_wait_as_long_as_queueing_theory_says(load: float) -> None:
    """M/D/1 (Pollaczek and Khinchine): the mean wait is load / (2 (1 - load)) service times."""
    service_ms = 12.5

    latencies = simulate(service(), Setting(1, 100, 1), poisson(load / service_ms * 1e3, 400_000), queue=10**6)

    wait_ms = latencies.mean() - service_ms - 1.5
    assert load / (2 * (1 - load)) * service_ms == pytest.approx(wait_ms, rel=0.05)


@pytest.mark.parametrize("batch_size", SIZES)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_saturated_workers_serve_w_b_over_the_time_of_a_batch(batch_size: int, workers: int) -> None:
    own = saturated_rps(service(shared=False), Setting(batch_size, 5, workers))
    shared = saturated_rps(service(), Setting(batch_size, 5, workers))

    cycle_ms = 10.2 + 1.2 * batch_size + 1.0 + 0.1 * batch_size
    device_ms = 10.0 + batch_size
    assert 1e3 * workers * batch_size / cycle_ms == pytest.approx(own, rel=0.03)
    assert 1e3 * batch_size * min(workers / cycle_ms, 1 / device_ms) == pytest.approx(shared, rel=0.03)


def test_a_size_between_two_measured_ones_has_the_quantiles_between_theirs() -> None:
    made = service(points=(Point.of(1, [(0, 10, 0), (0, 20, 0)]), Point.of(3, [(0, 40, 0), (0, 20, 4)])))

    assert [[[10, 0], [20, 0]], [[15, 2], [30, 0]], [[20, 4], [40, 0]]] == made.table_ms()[1:, :, 1:].tolist()


def test_every_measured_time_is_drawn_and_no_other() -> None:
    times = [10.0, 11.0, 19.0]
    made = service(points=(Point.of(1, [(0, ms, 0) for ms in times]),), batch_ms=0.0, request_ms=0.0, http_ms=0.0)

    latencies = simulate(made, Setting(1, 1, 1), np.arange(3000) / 10.0)

    assert times == np.unique(latencies.round(6)).tolist()
    assert 1000 == pytest.approx(np.count_nonzero(latencies > 15), abs=4 * 26)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31))
def test_a_seed_gives_one_result(seed: int) -> None:
    arrivals_s = poisson(200, 500, seed)

    once, twice = (simulate(service(), Setting(8, 5, 2), arrivals_s, seed=seed) for _ in range(2))

    assert np.array_equal(once, twice)


def test_a_queue_that_is_full_refuses_and_one_that_expires_says_nothing() -> None:
    burst = np.zeros(100)

    refused = simulate(replace(service(), queue=10), Setting(4, 5, 1), burst)
    expired = simulate(service(), Setting(4, 5, 1), burst, expiry_ms=60.0)

    assert 10 == np.count_nonzero(np.isfinite(refused))
    assert 0 < np.count_nonzero(np.isfinite(expired)) < 100
    assert expired[np.isfinite(expired)].max() < 61.5


@pytest.mark.parametrize("setting", [Setting(1, 100, 1), Setting(8, 5, 1), Setting(16, 2, 2), Setting(6, 20, 2)])
def test_a_predicted_rate_is_within_the_objective_and_a_little_more_is_not(setting: Setting) -> None:
    (found,) = predict(service(), [setting], SLO_MS, 99)

    below = at_rate(service(), setting, found.rps)
    above = at_rate(service(), setting, 1.01 * found.rps)
    assert below.p99_ms <= SLO_MS < above.p99_ms
    assert (found.p50_ms, found.p99_ms, found.mean_batch) == (below.p50_ms, below.p99_ms, below.mean_batch)
    assert 0 < found.rps < found.saturated_rps
    assert 1 == pytest.approx(sum(below.shares.values()))
    other = at_rate(service(), setting, 0.95 * found.rps, seed=7)
    assert other.p99_ms < 1.1 * SLO_MS


def test_a_setting_whose_lone_requests_miss_the_objective_has_no_rate() -> None:
    (found,) = predict(service(), [Setting(8, 95, 1)], SLO_MS, 99)

    assert 0 == found.rps
    assert found.p99_ms > SLO_MS


def test_bursts_carry_less_than_a_poisson_process_within_the_objective() -> None:
    gaps = np.random.default_rng(0).gamma(0.2, 5.0, 40_000)
    setting = Setting(8, 5, 1)

    (steady,), (bursty,) = predict(service(), [setting], SLO_MS, 99), predict(service(), [setting], SLO_MS, 99, gaps=gaps)

    assert bursty.rps < 0.95 * steady.rps


@pytest.mark.parametrize("arrivals", [[1.0, 0.5], [[0.0]], [0.0, math.inf]])
def test_arrivals_that_are_no_schedule_are_refused(arrivals: object) -> None:
    with pytest.raises(ValueError, match="ascending"):
        simulate(service(), Setting(1, 1, 1), arrivals)  # type: ignore[arg-type]


def test_nothing_is_said_of_batches_that_were_not_measured() -> None:
    with pytest.raises(ValueError, match="ends at batches of 16"):
        simulate(service(), Setting(32, 1, 1), [0.0])
    with pytest.raises(ValueError, match=r"from 1, got \[2\]"):
        service(points=(Point(2, 1, 1.0, 1.0),))


def seen(real: Service, setting: Setting, rps: float) -> Seen:
    """A trial of a server that is another twin."""
    arrivals_s = poisson(rps, 3000, seed=3)
    played = play(real, setting, arrivals_s, seed=5)
    full = round(100 * (played.mean_batch - 1) / max(1, setting.batch_size - 1))
    sizes = [setting.batch_size if number < full else 1 for number in range(100)]
    table_ms = real.table_ms()
    batches = [Batch(0.0, size, *table_ms[size, place % table_ms.shape[1]].tolist()) for place, size in enumerate(sizes)]
    return Seen(setting, arrivals_s, played.latencies_ms, batches)


def test_what_agrees_is_left_as_it_is() -> None:
    assert service() == refit(service(), [seen(service(), Setting(8, 5, 1), 250.0)])
    assert service() == refit(service(), [])


def test_overheads_that_were_wrong_are_corrected_by_trials() -> None:
    real = service(batch_ms=4.0, request_ms=0.4, http_ms=3.0)
    trials = [seen(real, Setting(8, 5, 1), 250.0), seen(real, Setting(1, 100, 1), 50.0), seen(real, Setting(16, 2, 2), 300.0)]

    found = refit(service(), trials)

    others = ((Setting(8, 2, 2), 300.0), (Setting(4, 5, 1), 150.0))
    p99s = [[at_rate(one, *other).p99_ms for one in (service(), found, real)] for other in others]
    assert any(abs(before / true - 1) > 0.25 for before, _, true in p99s)
    assert all(abs(told / true - 1) < 0.1 for _, told, true in p99s)


def test_batches_that_take_longer_under_load_are_believed_before_any_overhead_is() -> None:
    slow = replace(service(), points=tuple(Point.of(one.batch, 1.5 * one.rows_ms) for one in service().points))
    trials = [seen(slow, Setting(8, 5, 1), 150.0), seen(slow, Setting(1, 100, 1), 30.0)]

    found = refit(service(), trials)

    assert (service().batch_ms, service().request_ms, service().http_ms) == (found.batch_ms, found.request_ms, found.http_ms)
    assert [pytest.approx(1.5 * one.p50_ms, rel=0.1) for one in service().points] == [one.p50_ms for one in found.points]
    two = [replace(one, setting=replace(one.setting, workers=2)) for one in trials]
    assert service() == under_load(service(), two)  # their log says how long they waited for each other, too


def test_a_log_of_hundreds_shows_stalls_that_the_few_samples_of_a_curve_did_not_meet() -> None:
    """Of every size: which one was met by a stall is chance."""
    times = np.where(np.arange(600) % 50 == 0, 8.0, 1.0)
    (one, *_) = seen(service(), Setting(8, 5, 1), 150.0).batches
    log = [replace(one, inference_ms=float(time * one.inference_ms)) for time in times]
    trial = replace(seen(service(), Setting(8, 5, 1), 150.0), batches=log)

    found = under_load(service(), [trial])

    for before, point in zip(service().points, found.points, strict=True):
        total_ms = point.rows_ms.sum(axis=1)
        assert 0.02 == pytest.approx(np.mean(total_ms > 5 * before.p50_ms), abs=0.005)
        assert before.p50_ms == pytest.approx(float(np.median(total_ms)), rel=0.1)
        assert point.inference_ms is not None


@pytest.mark.parametrize(("samples", "p"), [(97, 94.8), (500, 99.0), (20_000, 99.0), (7, 50.0)])
def test_a_tail_has_some_requests_beyond_it(samples: int, p: float) -> None:
    assert p == pytest.approx(tail(samples), abs=0.1)


def test_a_trial_that_lost_requests_is_seen_as_a_miss_and_does_not_break_the_fit() -> None:
    trial = seen(service(), Setting(8, 5, 1), 250.0)
    lost = replace(trial, latencies_ms=np.where(np.arange(trial.latencies_ms.size) % 20 == 0, np.inf, trial.latencies_ms))

    found = refit(service(), [lost])

    assert all(math.isfinite(ms) for ms in (found.batch_ms, found.request_ms, found.http_ms))
    assert percentile(lost.latencies_ms, 99) == math.inf
