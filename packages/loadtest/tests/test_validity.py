import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marline.loadtest import Load, Measurement, growing, invalid_reason, read_measurement
from marline.loadtest._validity import CPU_LIMIT, lag_limit_ms

LOAD = Load(rps=100, seconds=3, warmup_s=1, arrivals="constant", seed=0, timeout_s=1)
COUNT = 300
SCHEDULED = 1 + np.arange(COUNT) / 100
GOOD = Measurement(
    scheduled_s=SCHEDULED,
    sent_s=SCHEDULED + 0.0002,
    finished_s=SCHEDULED + 0.02,
    status=np.full(COUNT, 200, np.int16),
    error=np.full(COUNT, ""),
    payload=np.zeros(COUNT, np.int32),
    size_bytes=np.full(COUNT, 2),
    in_flight=np.array([[1.0, 2.0], [2.0, 2.0]]),
    mean_in_flight=2.0,
    little_in_flight=2.0,
    generator_cpu=0.1,
    offered_rps=100.0,
    answered_rps=100.0,
    seconds=3.0,
    total=400,
)
UNSENT = np.where(np.arange(COUNT) == 5, np.nan, GOOD.sent_s)
FULL = np.where(np.arange(COUNT) == 5, "OSError EMFILE", "")
REFUSED = np.where(np.arange(COUNT) == 5, "HTTP 400 InvalidKeyException", "")


def test_a_good_measurement_is_valid() -> None:
    assert invalid_reason(GOOD, LOAD, 50) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sent_s": UNSENT}, "1 of 300 requests were never sent (limit 0)"),
        ({"error": REFUSED, "status": np.where(REFUSED == "", 200, 400)}, "1 requests were refused for their token (limit 0)"),
        ({"missing": 1, "senders": 2}, "1 of 2 workers were missing at the end (limit 0)"),
        (
            {"error": FULL, "status": np.where(FULL == "", 200, 0)},
            "1 requests failed on the sender's side: OSError EMFILE (limit 0)",
        ),
        ({"sent_s": SCHEDULED + 0.003}, f"requests were sent late: p99 of the lag 3.0 ms (limit {lag_limit_ms(50):.1f} ms)"),
        ({"generator_cpu": 0.95}, f"the sender was busy: 0.95 of a core (limit {CPU_LIMIT:.2f})"),
        ({"sent_s": SCHEDULED + 3 * (np.arange(COUNT) < 3)}, None),
        ({"little_in_flight": 2.2}, "2.00 requests were in flight, by Little's law 2.20 should have been (limit 5%)"),
        ({"little_in_flight": 2.2, "total": 200}, None),
    ],
)
def test_each_gate_names_its_figure_and_limit(changed: dict[str, Any], words: str | None) -> None:
    assert words == invalid_reason(dataclasses.replace(GOOD, **changed), LOAD, 50)


def test_requests_sent_after_the_time_are_not_achieved() -> None:
    late = dataclasses.replace(GOOD, sent_s=np.where(np.arange(COUNT) < 6, 5.0, GOOD.sent_s))

    assert "only 98.0% of the requests were sent within the time (limit 99%)" == invalid_reason(late, LOAD, 1e6)


@pytest.mark.parametrize(
    ("slo_ms", "alone", "shared"), [(10.0, 0.5, 1.0), (20.0, 1.0, 1.0), (50.0, 1.0, 2.5), (200.0, 4.0, 10.0), (None, 1.0, 1.0)]
)
def test_how_late_is_too_late(slo_ms: float | None, alone: float, shared: float) -> None:
    assert pytest.approx([alone, shared]) == [lag_limit_ms(slo_ms, shared=told) for told in (False, True)]


def test_users_are_never_late_for_anything() -> None:
    closed = dataclasses.replace(LOAD, users=2)
    changed = dataclasses.replace(GOOD, sent_s=SCHEDULED + 0.2)

    assert invalid_reason(changed, LOAD, 50) is not None
    assert invalid_reason(changed, closed, 50) is None


def queue(load_: float, seconds: float, seed: int, service_s: float = 0.01) -> Measurement:
    """What a load test of a single queue would have seen: Poisson arrivals, one server of constant service time (M/D/1)."""
    draw, warmup_s = np.random.default_rng(seed), 2.0
    rate = load_ / service_s
    arrived = np.sort(draw.uniform(0, warmup_s + seconds, round(rate * (warmup_s + seconds))))
    ahead = np.arange(arrived.size) * service_s
    begun = np.asarray(np.maximum.accumulate(arrived - ahead), np.float64)
    finished = ahead + service_s + begun  # Lindley's recursion, unrolled
    instants = np.arange(warmup_s, warmup_s + seconds, 0.05)
    waiting = np.searchsorted(arrived, instants) - np.searchsorted(finished, instants)
    judged = arrived >= warmup_s
    return dataclasses.replace(
        GOOD,
        scheduled_s=arrived[judged],
        sent_s=arrived[judged],
        finished_s=finished[judged],
        status=np.full(judged.sum(), 200, np.int16),
        error=np.full(judged.sum(), ""),
        in_flight=np.stack([instants, waiting], axis=1),
        seconds=seconds,
    )


def share_growing(make: Callable[[int], Measurement], trials: int) -> float:
    return sum(growing(make(seed)) is not None for seed in range(trials)) / trials


@pytest.mark.parametrize(("load_", "seconds"), [(0.5, 10.0), (0.9, 10.0), (0.9, 40.0)])
def test_a_steady_queue_is_hardly_ever_called_unsteady(load_: float, seconds: float) -> None:
    assert share_growing(lambda seed: queue(load_, seconds, seed), 2000) <= 0.01


@pytest.mark.parametrize(("load_", "seconds", "least"), [(1.3, 10.0, 0.9), (1.15, 40.0, 0.9)])
def test_a_queue_that_grows_is_noticed(load_: float, seconds: float, least: float) -> None:
    assert share_growing(lambda seed: queue(load_, seconds, seed), 200) >= least


def test_a_growing_queue_is_invalid_while_it_passes_and_over_capacity_when_it_fails() -> None:
    grown = queue(1.3, 10.0, 0)
    little = dataclasses.replace(grown, mean_in_flight=2.0, little_in_flight=2.0)
    load = dataclasses.replace(LOAD, seconds=10, warmup_s=2)

    assert (invalid_reason(little, load, 1e5) or "").startswith("no steady state: requests in flight grew by ")
    assert invalid_reason(little, load, 100) is None
    assert invalid_reason(little, dataclasses.replace(load, shape="step"), 1e5) is None  # it is meant to change


def test_a_slow_objective_allows_more_lag() -> None:
    late = dataclasses.replace(GOOD, sent_s=SCHEDULED + 0.009)

    assert invalid_reason(late, LOAD, None) is not None
    assert invalid_reason(late, LOAD, 200) is None


def test_a_measurement_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    lossy = dataclasses.replace(GOOD, status=np.where(REFUSED == "", 200, 400).astype(np.int16), error=REFUSED)
    lossy.save(tmp_path / "samples.npz")

    again = read_measurement(tmp_path / "samples.npz")

    for field in dataclasses.fields(Measurement):
        assert np.array_equal(getattr(lossy, field.name), getattr(again, field.name)), field.name
    assert np.isinf(again.latencies_ms[5])
    assert {"HTTP 400 InvalidKeyException": 1} == again.errors
