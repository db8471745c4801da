"""What the twin says beyond the choice: it is the twin's own word at other loads, objectives and numbers of workers."""

from dataclasses import replace

import pytest

from marline.tune import Service, Setting, at_rate, predict
from marline.tune._batches import Batch
from marline.tune._outlook import outlook
from marline.tune._predict import Forecaster
from marline.tune._result import _stages_ms

CHOSEN = Setting(4, 2, 1)
SETTINGS = [Setting(1, 100, 1), CHOSEN, Setting(16, 2, 1)]


def test_other_loads_and_objectives_are_what_the_twin_says_of_them(service: Service) -> None:
    told = outlook(Forecaster(service, SETTINGS, 100.0, 99), CHOSEN, 160.0)

    assert told is not None
    half, whole, more = told["load"]
    assert [80.0, 160.0, 240.0] == [half["rps"], whole["rps"], more["rps"]]
    assert round(at_rate(service, CHOSEN, 160.0, 99.0).p99_ms, 3) == whole["p99_ms"]
    assert half["p99_ms"] < whole["p99_ms"] < more["p99_ms"]
    assert pytest.approx(1, abs=0.001) == sum(whole["shares"].values())
    less, same, looser = told["objective"]
    assert round(predict(service, [CHOSEN], 100.0, 99)[0].rps, 2) == same["rps"]
    assert less["rps"] <= same["rps"] <= looser["rps"]
    assert same["rps"] < same["best_rps"]
    assert (16, 2, 1) == (same["best_batch_size"], same["best_max_batch_delay_ms"], same["best_workers"])


def test_more_workers_are_foretold_only_where_they_share_one_accelerator(service: Service) -> None:
    shared, own = (
        outlook(Forecaster(one, SETTINGS, 100.0, 99), CHOSEN, 200.0) for one in (service, replace(service, shared=False))
    )

    assert shared is not None
    assert own is not None
    rates = [one["rps"] for one in shared["workers"]]
    assert [1, 2, 3, 4] == [one["workers"] for one in shared["workers"]]
    assert 0 < rates[0] < rates[1] < 2 * rates[0]  # inference is serial over both
    assert [] == own["workers"]


def test_nothing_is_foretold_of_a_choice_without_a_rate(service: Service) -> None:
    assert outlook(Forecaster(service, SETTINGS, 100.0, 99), CHOSEN, 0.0) is None


def test_stages_are_means_over_requests_not_over_batches() -> None:
    batches = [Batch(1.0, 3, 1.0, 10.0, 0.5), Batch(2.0, 1, 5.0, 2.0, 0.1)]

    assert {"pre_ms": 2.0, "inference_ms": 8.0, "post_ms": 0.4} == _stages_ms(batches)
    assert _stages_ms([]) is None
