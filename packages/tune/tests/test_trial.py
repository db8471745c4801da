import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from marline.deploy import Status
from marline.loadtest import Load
from marline.tune import Trial
from marline.tune._batches import Batch
from marline.tune._trial import _server_reason, _uneven, _wasted

CONTRACT = {
    *("batch_size", "max_batch_delay_ms", "workers", "rps", "p50_ms", "p95_ms", "p99_ms", "samples", "slo_met"),
    *("valid", "invalid_reason", "seconds", "errors", "mean_batch"),
}


def test_a_trial_has_every_key_of_the_contract_and_is_json(trial: Trial) -> None:
    told = trial.as_json()

    assert told.keys() >= CONTRACT
    assert told == json.loads(json.dumps(told, allow_nan=False))


def test_a_percentile_of_requests_that_were_lost_is_null(trial: Trial) -> None:
    lost = replace(trial, p99_ms=float("inf"), service_p99_ms=float("inf"), mean_batch=None)

    told = lost.as_json()

    assert (None, None, None) == (told["p99_ms"], told["service_p99_ms"], told["mean_batch"])


def test_only_a_valid_trial_speaks_for_its_rate(trial: Trial) -> None:
    assert trial.within(10.0)
    assert not trial.within(9.9)
    assert not replace(trial, valid=False).within(10.0)


STATUS = Status(batch_size=2, max_batch_delay_ms=2, workers=((11, "READY"),), pending=0)


def test_batches_must_add_up_to_the_answers_where_they_are_reported() -> None:
    measured: Any = SimpleNamespace(status=np.full(3, 200), total=3)  # what is looked at of a measurement

    assert _server_reason(STATUS, STATUS, measured, None) is None
    assert _server_reason(STATUS, STATUS, measured, [Batch(1.0, 3, 1.0, 1.0, 1.0)]) is None
    assert "the worker logged 0 requests" in str(_server_reason(STATUS, STATUS, measured, []))
    replaced = replace(STATUS, workers=((12, "READY"),))
    assert "a worker was replaced during the trial" == _server_reason(STATUS, replaced, measured, None)


def test_a_recording_that_is_quiet_at_first_says_nothing_of_the_rate_it_has_on_the_whole() -> None:
    load = Load(rps=50, seconds=10, warmup_s=2, arrivals="replay", seed=0, timeout_s=1, replay=Path("day.txt"))
    even, quiet = (SimpleNamespace(offered_rps=rps) for rps in (51.0, 8.6))

    assert _uneven(cast("Any", even), load) is None
    assert "the first 12 s of day.txt offer 8.6 requests/s where 50.0" in str(_uneven(cast("Any", quiet), load))
    assert _uneven(cast("Any", quiet), replace(load, arrivals="poisson", replay=None)) is None


def test_what_was_computed_for_nobody_is_counted() -> None:
    measured: Any = SimpleNamespace(status=np.array([200, 200, 0, 503]), total=5)  # one more was for the warm-up

    assert 0 == _wasted(measured, [Batch(1.0, 3, 1.0, 1.0, 1.0)])
    assert 1 == _wasted(measured, [Batch(1.0, 3, 1.0, 1.0, 1.0), Batch(2.0, 1, 1.0, 1.0, 1.0)])
