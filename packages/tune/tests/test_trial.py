import json
from dataclasses import replace

from marline.tune import Trial

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
