"""Levels, and what is looked for on them."""

from collections.abc import Callable

import numpy as np
import pytest

from marline.loadtest import percentile
from marline.plan import Twin
from marline.tune import Setting, at_rate

Make = Callable[..., Twin]
BALANCING = ("round_robin", "least_outstanding")


@pytest.mark.parametrize("balancing", BALANCING)
@pytest.mark.parametrize("setting", [Setting(8, 5, 1), Setting(1, 100, 2), Setting(4, 20, 2)], ids=str)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
def test_a_level_agrees_with_its_load_request_by_request(
    make_twin: Make, balancing: str, setting: Setting, share: float
) -> None:
    told, replicas = make_twin(balancing, setting, jitter=0.1), 40
    rps = share * replicas * told.alone.saturated_rps
    arrivals_s = np.cumsum(np.random.default_rng(7).exponential(1 / rps, 400_000))

    level = told.level(rps, replicas)
    latencies_ms = told.play(arrivals_s, replicas)[0][40_000:]

    assert abs(level.tail_ms / percentile(latencies_ms, 99) - 1) < 0.05
    assert abs(level.p50_ms / percentile(latencies_ms, 50) - 1) < 0.05


def test_one_replica_takes_the_stream_as_it_comes(make_twin: Make) -> None:
    told = make_twin()
    alone = at_rate(told.service, told.setting, 100.0)

    assert abs(told.level(100.0, 1).tail_ms / alone.tail_ms - 1) < 0.05


@pytest.mark.parametrize("balancing", BALANCING)
def test_the_fewest_hold_the_objective_and_one_less_does_not(make_twin: Make, balancing: str) -> None:
    told = make_twin(balancing, jitter=0.1)
    fewest = told.fewest(5000.0)

    assert fewest is not None
    assert told.holds(5000.0, fewest)
    assert not told.holds(5000.0, fewest - 1)
    assert 5000.0 / told.alone.saturated_rps < fewest <= np.ceil(5000.0 / told.alone.rps)


@pytest.mark.parametrize("balancing", BALANCING)
def test_the_most_that_replicas_carry_needs_about_as_many(make_twin: Make, balancing: str) -> None:
    told = make_twin(balancing, jitter=0.1)
    most = told.most(30)

    assert told.holds(most, 30)
    assert not told.holds(1.01 * most, 30)
    assert told.fewest(most) in {29, 30}


def test_an_objective_below_a_lone_request_is_held_by_no_number(make_twin: Make) -> None:
    told = make_twin()
    hopeless = Twin(service=told.service, setting=told.setting, slo_ms=10.0, percentile=99.0, balancing="round_robin")

    assert hopeless.fewest(100.0) is None
    assert 0.0 == hopeless.most(10)
    assert 1 == told.fewest(0.0)


def test_more_than_replicas_carry_is_infinite(make_twin: Make) -> None:
    told = make_twin("least_outstanding")

    assert np.isinf(told.level(3 * 4 * told.alone.saturated_rps, 4).tail_ms)
    assert not told.holds(3 * 4 * told.alone.saturated_rps, 4)
