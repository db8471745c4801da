"""Many replicas, request by request: what must be equal to the twin of one, and what must hold of any balancer."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marline.plan import Twin
from marline.tune import Setting, simulate

Make = Callable[..., Twin]
BALANCING = ("round_robin", "least_outstanding")
LONE_MS = 1.0 + 18.0 + 1.0 + 1.1 + 1.0  # its stages, the overheads of a batch of one, HTTP
SETTINGS = st.builds(Setting, st.integers(1, 8), st.integers(1, 30), st.integers(1, 4))


def arrivals(seed: int, rps: float, count: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rps, count))


@pytest.mark.parametrize("balancing", BALANCING)
@settings(max_examples=40, deadline=None)
@given(setting=SETTINGS, seed=st.integers(0, 999), rps=st.floats(1, 1000), shared=st.booleans())
def test_one_replica_alone_is_the_twin_to_the_last_bit(
    make_twin: Make, balancing: str, setting: Setting, seed: int, rps: float, shared: bool
) -> None:
    told, arrivals_s = make_twin(balancing, setting, jitter=0.2, shared=shared), arrivals(seed, rps, 3000)

    latencies_ms, _ = told.play(arrivals_s, 1)

    assert np.array_equal(latencies_ms, simulate(told.service, setting, arrivals_s))


@settings(max_examples=40, deadline=None)
@given(setting=SETTINGS, seed=st.integers(0, 999), rps=st.floats(1, 500), replicas=st.integers(2, 9), shared=st.booleans())
def test_round_robin_gives_each_replica_what_its_part_of_the_stream_gives_alone(
    make_twin: Make, setting: Setting, seed: int, rps: float, replicas: int, shared: bool
) -> None:
    told, arrivals_s = make_twin("round_robin", setting, shared=shared), arrivals(seed, rps * replicas, 4000)

    latencies_ms, _ = told.play(arrivals_s, replicas)

    for replica in range(replicas):
        alone = simulate(told.service, setting, arrivals_s[replica::replicas])
        assert np.array_equal(latencies_ms[replica::replicas], alone)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 999), rps=st.floats(1, 800), replicas=st.integers(1, 12))
def test_nobody_waits_behind_least_outstanding_while_a_replica_is_empty(
    make_twin: Make, seed: int, rps: float, replicas: int
) -> None:
    told, arrivals_s = make_twin("least_outstanding", Setting(1, 5, 1)), arrivals(seed, rps, 1000)

    latencies_ms, _ = told.play(arrivals_s, replicas)

    ends_ms = arrivals_s * 1e3 + latencies_ms - told.service.http_ms
    held = [np.count_nonzero(ends_ms[:place] > now) for place, now in enumerate(arrivals_s * 1e3)]
    alone = np.isclose(latencies_ms, LONE_MS, rtol=0, atol=1e-6)
    assert alone[np.array(held) < replicas].all()
    assert not alone[np.array(held) >= replicas].any()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), setting=SETTINGS, replicas=st.integers(1, 20))
def test_as_many_requests_as_replicas_at_once_go_to_one_each(
    make_twin: Make, seed: int, setting: Setting, replicas: int
) -> None:
    told = make_twin("least_outstanding", setting)
    arrivals_s = np.sort(np.random.default_rng(seed).uniform(1.0, 1.001, replicas))

    latencies_ms, mean_batch = told.play(arrivals_s, replicas)

    delay_ms = setting.max_batch_delay_ms if setting.batch_size > 1 else 0
    assert 1.0 == mean_batch
    assert np.allclose(latencies_ms, LONE_MS + delay_ms, rtol=0, atol=1e-6)


@pytest.mark.parametrize("balancing", BALANCING)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), setting=SETTINGS, rps=st.floats(100, 20_000), replicas=st.integers(1, 9))
def test_every_request_is_answered_no_sooner_than_it_can_be_or_refused(
    make_twin: Make, balancing: str, seed: int, setting: Setting, rps: float, replicas: int
) -> None:
    told = make_twin(balancing, setting)

    latencies_ms, mean_batch = told.play(arrivals(seed, rps, 3000), replicas)

    room = replicas * (told.service.queue + setting.workers * setting.batch_size)
    assert latencies_ms.min() >= LONE_MS - 1e-6
    assert np.count_nonzero(np.isfinite(latencies_ms)) >= min(3000, room)
    assert 1 <= mean_batch <= setting.batch_size


@pytest.mark.parametrize("balancing", BALANCING)
def test_the_same_seed_gives_the_same_and_another_does_not(make_twin: Make, balancing: str) -> None:
    first, again, other = (
        Twin(
            service=make_twin(jitter=0.2).service,
            setting=Setting(8, 5, 1),
            slo_ms=150.0,
            percentile=99.0,
            balancing=balancing,
            seed=seed,
        ).level(1000.0, 8)
        for seed in (0, 0, 1)
    )

    assert first == again
    assert first != other
