import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from marline.loadtest import Load, arrival_times

LOADS = st.builds(
    Load,
    rps=st.floats(0.5, 500),
    seconds=st.floats(0.5, 20),
    warmup_s=st.floats(0, 5),
    arrivals=st.sampled_from(["poisson", "constant"]),
    seed=st.integers(0, 2**32),
    timeout_s=st.just(1.0),
)


@given(LOADS)
def test_arrivals_are_in_order_and_within_the_time(load: Load) -> None:
    times = arrival_times(load)

    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times < load.warmup_s + load.seconds))


@given(LOADS)
def test_a_seed_gives_the_same_arrivals_again(load: Load) -> None:
    assert np.array_equal(arrival_times(load), arrival_times(load))


def test_poisson_gaps_are_exponential() -> None:
    load = Load(rps=100, seconds=200, warmup_s=0, arrivals="poisson", seed=1, timeout_s=1)

    gaps = np.diff(arrival_times(load))

    assert abs(gaps.mean() * load.rps - 1) < 0.03
    assert abs(gaps.std() / gaps.mean() - 1) < 0.03  # the coefficient of variation of an exponential is 1
    assert abs((gaps > 2 / load.rps).mean() - np.exp(-2)) < 0.01


def test_constant_gaps_are_equal() -> None:
    load = Load(rps=50, seconds=2, warmup_s=1, arrivals="constant", seed=0, timeout_s=1)

    times = arrival_times(load)

    assert 150 == times.size
    assert np.allclose(np.diff(times), 0.02)


def test_another_seed_gives_other_arrivals() -> None:
    load = Load(rps=50, seconds=2, warmup_s=0, arrivals="poisson", seed=0, timeout_s=1)

    assert arrival_times(load).tolist() != arrival_times(dataclasses.replace(load, seed=1)).tolist()
