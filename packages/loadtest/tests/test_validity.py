import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marline.loadtest import Load, Measurement, invalid_reason, read_measurement

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
    seconds=3.0,
    total=400,
)
UNSENT = np.where(np.arange(COUNT) == 5, np.nan, GOOD.sent_s)
REFUSED = np.where(np.arange(COUNT) == 5, "HTTP 400 InvalidKeyException", "")


def test_a_good_measurement_is_valid() -> None:
    assert invalid_reason(GOOD, LOAD, 50) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sent_s": UNSENT}, "1 of 300 requests were never sent (limit 0)"),
        ({"error": REFUSED, "status": np.where(REFUSED == "", 200, 400)}, "1 requests were refused for their token (limit 0)"),
        ({"sent_s": SCHEDULED + 0.003}, "requests were sent late: p99 of the lag 3.0 ms (limit 2.5 ms)"),
        ({"generator_cpu": 0.95}, "the sender was busy: 0.95 of a core (limit 0.90)"),
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
