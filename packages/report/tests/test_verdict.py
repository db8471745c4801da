import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.report import summary
from marline.report._verdict import fewest
from marline.report._words import duration, milliseconds, number

Make = Callable[..., Path]
CHOSEN = {"batch_size": 4, "max_batch_delay_ms": 2, "workers": 1, "rps": 27.2, "p50_ms": 63.3, "p95_ms": 128.2, "p99_ms": 166.7}
NOTHING = {"rps": 0.0, "p50_ms": None, "p95_ms": None, "p99_ms": None, "samples": 0, "slo_met": False}


def told(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


HOW = "within its SLO of p99 ≤ 183 ms on Intel Xeon Platinum 8370C, with batchSize 4, maxBatchDelay 2 ms, 1 worker."
NEED = (
    "Deciding p99 with 95 % confidence takes at least 299 requests, and more for each one over the SLO; "
    "longer trials decide it."
)


@pytest.mark.parametrize(
    ("samples", "met", "sentence", "confidence"),
    [
        (
            1088,
            True,
            f"resnet50 carries 27.2 requests/s per replica {HOW}",
            "Met: 1,088 requests at this rate confirm it with 95 % confidence.",
        ),
        (
            120,
            None,
            f"It is undecided whether resnet50 carries 27.2 requests/s {HOW}",
            f"Undecided: too few samples (n = 120). {NEED}",
        ),
        (
            1088,
            False,
            f"resnet50 does not carry 27.2 requests/s per replica {HOW}",
            "Not met: 1,088 requests at this rate refute it with 95 % confidence; their p99 is 167 ms.",
        ),
    ],
)
def test_the_verdict_says_what_was_found_and_how_sure_it_is(
    make: Make, samples: int, met: bool | None, sentence: str, confidence: str
) -> None:
    folder = make(chosen={**CHOSEN, "samples": samples, "slo_met": met})
    verdict = told(folder)["verdict"]

    assert (sentence, confidence) == (verdict["sentence"], verdict["confidence"])
    assert confidence in (folder / "report.html").read_text()
    assert confidence in (folder / "report.md").read_text()


def test_a_model_that_never_met_its_slo_gets_no_rate_no_gain_and_no_replicas(make: Make) -> None:
    folder = make(chosen={**CHOSEN, **NOTHING}, default={**CHOSEN, **NOTHING, "batch_size": 1}, gain=None)
    report = told(folder)

    assert report["verdict"]["sentence"].startswith("resnet50 met its SLO of p99 ≤ 183 ms at no rate that was tried")
    assert "neither it nor any other configuration carried a rate within the SLO" in report["verdict"]["gain"]
    assert "No number of replicas can be given: no rate was within the SLO." in (folder / "report.md").read_text()


def test_a_run_without_a_valid_trial_is_called_unknown_and_not_unmet(make: Make) -> None:
    unjudged = NOTHING | {"slo_met": None}
    folder = make(chosen=CHOSEN | unjudged, default=CHOSEN | unjudged, gain=None)

    verdict = told(folder)["verdict"]

    assert verdict["sentence"].startswith("It is unknown whether resnet50 meets its SLO of p99 ≤ 183 ms")
    assert "Undecided: every trial of it was invalid." == verdict["confidence"]


def test_a_default_that_won_is_called_the_best_of_what_was_tried(make: Make) -> None:
    default = {**CHOSEN, "batch_size": 1, "max_batch_delay_ms": 100, "samples": 816, "slo_met": True}
    report = told(make(chosen=default, default=default, gain=1.0))

    assert report["verdict"]["gain"].endswith("is the best of what was tried; gain 1.")


def test_a_gain_between_undecided_rates_is_only_an_indication(make: Make) -> None:
    report = told(make(chosen={**CHOSEN, "samples": 120, "slo_met": None}))

    assert "Only an indication: not both rates are confirmed." in report["verdict"]["gain"]


def test_the_console_summary_has_one_line_per_question(usual: Path) -> None:
    lines = dict(summary(told(usual)))

    assert ["model", "weights", "accelerator", "SLO", "default", "chosen", "gain", "verdict", "replicas"] == list(lines)
    assert "batchSize 4, maxBatchDelay 2 ms, 1 worker: 27.2 requests/s, p99 167 ms (n = 1,088)" == lines["chosen"]
    assert "6 for 100 requests/s, 8 for 150 requests/s, 11 for 200 requests/s, 16 for 300 requests/s" == lines["replicas"]


@pytest.mark.parametrize(("percentile", "sure", "expected"), [(99, 0.95, 299), (99, 0.99, 459), (95, 0.99, 90), (90, 0.99, 44)])
def test_the_fewest_requests_for_a_verdict_match_the_binomial_table(percentile: float, sure: float, expected: int) -> None:
    assert expected == fewest(percentile, sure)


def test_numbers_have_three_digits_and_no_exponent() -> None:
    assert ["7.31", "9.99", "10.0", "93.4", "183", "12,346", "0.00123", "0", "–"] == [
        number(value) for value in (7.314, 9.994, 9.996, 93.42, 183.2, 12346, 0.001234, 0.0, None)
    ]


def test_a_lost_percentile_is_not_a_missing_one() -> None:
    assert ("∞", "–") == (milliseconds(None, 300), milliseconds(None, 0))


def test_durations_use_the_unit_one_would_say() -> None:
    assert ["0.4 s", "12 s", "3 min 20 s", "1 h 5 min"] == [duration(seconds) for seconds in (0.4, 12.2, 200, 3900)]
