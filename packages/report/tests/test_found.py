"""How the configuration was found: predictions beside measurements, diagnoses, values, noise, GPUs."""

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.report import summary
from marline.report._words import number

Make = Callable[..., Path]
PAGES = ["report.html", "report.md"]


def words_of(page: Path) -> str:
    """A page as one line of words, without tags, table borders and emphasis."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>|[|*\\]", " ", page.read_text())).split())


def told(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


def test_every_prediction_stands_beside_its_measurement_with_its_error(usual: Path) -> None:
    for page in PAGES:
        text = words_of(usual / page)
        assert "4 2 1 27.2 63.3 61.2 166 158 -5 % 2.4 (2.3)" in text
        assert "1 100 1 28.1 2,390 2,210 ∞ 4,180 – 1.0 (1.0)" in text  # nothing to compare a lost percentile with
        assert "was off by 5 % in p99 (median of 1)" in text
    assert 2 == len(told(usual)["compared"])


def test_a_run_without_predictions_has_no_map_and_says_so(make: Make) -> None:
    folder = make(predictions=[], compared=[], strategy="grid")

    for page in PAGES:
        text = words_of(folder / page)
        assert "Nothing was predicted that a trial could be compared with." in text
        assert "Strategy grid: 23 load tests" in text
        assert "hatched" not in text
    assert not (folder / "batch_and_delay.svg").exists()


def test_the_map_has_a_cell_for_every_pair_and_tells_measured_from_predicted(usual: Path) -> None:
    drawn = (usual / "batch_and_delay.svg").read_text()
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", drawn)
    cells = {(one["batch_size"], one["max_batch_delay_ms"]): one for one in told(usual)["map"]}

    rates = {(one["batch_size"], one["max_batch_delay_ms"]): one for one in told(usual)["predictions"]}
    assert set(rates) - {(1, 100)} == set(cells)
    held = [trial for trial in told(usual)["trials"] if trial["valid"] and (trial["p99_ms"] or 1e9) <= 183.0]
    best = max((one for one in held if (one["batch_size"], one["max_batch_delay_ms"]) == (4, 2)), key=lambda one: one["rps"])
    measured = cells[4, 2]
    assert (best["rps"], best["mean_batch"], "measured") == (measured["rps"], measured["mean_batch"], measured["origin"])
    predicted = cells[8, 100]
    assert (rates[8, 100]["rps"], "predicted") == (predicted["rps"], predicted["origin"])
    assert texts.count("none") == sum(not one["rps"] for one in cells.values()) > 0
    assert f"{measured['rps']:.1f}" in texts
    assert {f"≈ {number(one['rps'])}" for one in cells.values() if one["origin"] == "predicted" and one["rps"]} <= set(texts)
    framed = sum(one["origin"] == "measured" for one in cells.values())
    assert (1, framed) == (drawn.count("stroke-width: 2.6"), drawn.count("stroke-width: 1.1") + 1)
    assert f"batch 4, delay 2 ms: {measured['rps']:.1f} requests/s measured, mean batch" in drawn
    assert "batch_and_delay.svg" in (usual / "report.md").read_text()
    assert drawn[drawn.index("<g id") :][:200] not in (usual / "report.md").read_text()


def test_what_bounds_each_configuration_is_said_of_the_measured_and_counted_of_the_others(usual: Path) -> None:
    for page in PAGES:
        text = words_of(usual / page)
        assert "4 2 1 compute-bound batches of 2.4 of 4, workers 88 % busy; 63.9 ms of the 72 ms" in text
        assert "1 100 1 compute-bound batches of 1.0 of 1" in text
        assert "left after the 100 ms delay" not in text
        assert "Of those that were predicted and not measured: 2 delay-bound." in text
    assert 4 == len(told(usual)["diagnoses"])


def test_every_value_of_the_archive_is_shown_with_what_it_was_and_why(usual: Path) -> None:
    for page in PAGES:
        text = words_of(usual / page)
        assert "jobQueueSize 1,000 8 a batch for each worker, and one that gathers" in text
        assert "responseTimeout 60 10 3 × the objective, at least 10 s, for one batch; s" in text
        assert (
            "minWorkers: 1\nmaxWorkers: 1\njobQueueSize: 8\nresponseTimeout: 10\nclientTimeoutInMills: 10000"
            in (usual / page).read_text()
        )


def test_a_gain_is_shown_with_the_noise_it_is_above(usual: Path) -> None:
    report = told(usual)

    assert report["verdict"]["gain"].endswith("requests/s within the same SLO (A/A noise 4 %).")
    assert "1.33× (A/A noise 4 %)" == dict(summary(report))["gain"]


@pytest.mark.parametrize(
    ("noise", "words"),
    [
        ({"p50": 1.2, "p99": 1.9, "rps_floor": 0.4, "trials": [1, 2]}, "and that is within the A/A noise of 40 %."),
        (None, "and the A/A noise of this machine is not known."),
    ],
)
def test_a_gain_within_the_noise_is_not_claimed(make: Make, noise: Any, words: str) -> None:
    folder = make(noise=noise)

    gain = told(folder)["verdict"]["gain"]
    assert gain.startswith("No gain is claimed: 1.33× the rate of TorchServe's default")
    assert words in gain
    for page in PAGES:
        assert gain in words_of(folder / page)


def test_what_was_chosen_for_one_rate_is_compared_by_latency(make: Make) -> None:
    folder = make(objective={"name": "latency", "at_rps": 20.0}, gain=1.0)

    words = "Chosen for latency at 20.0 requests/s: its p99 there is 167 ms, that of TorchServe's default (batchSize 1, "
    assert told(folder)["verdict"]["gain"].startswith(words)
    for page in PAGES:
        assert f"{words}maxBatchDelay 100 ms) 124 ms (A/A noise of p99 a factor of 1.07)." in words_of(folder / page)


def test_noise_effort_and_runner_up_are_said(make: Make, usual: Path) -> None:
    for page in PAGES:
        text = words_of(usual / page)
        assert "Strategy predict: 23 load tests, 290 s of load." in text
        assert "differed by a factor of 1.02 in p50 and 1.07 in p99, worth 4 % of a rate" in text
        assert "The runner-up, batchSize 8, maxBatchDelay 2 ms, workers 1, carried 25.9 requests/s (met) in a trial" in text
        assert "TorchServe's default runner-up (search) chosen" in text
    assert told(make("alone", runner_up=None))["runner_up"] is None


def test_the_answer_of_the_tuning_run_is_in_every_file(usual: Path) -> None:
    for page in PAGES:
        assert "batch_size=4 max_batch_delay_ms=2 workers=1 → 27.2 req/s at p99 ≤ 183 ms" in words_of(usual / page)
    assert told(usual)["answer"].startswith("batch_size=4")


def test_gpus_are_shown_where_there_are_some(make: Make) -> None:
    seen = {"phase": "curve", "gpu": 0, "name": "NVIDIA T4", "samples": 40, "utilisation_percent": 71.3, "power_w": 61.2}
    seen |= {"clock_mhz": 1402.5, "lowest_clock_mhz": 1005, "memory_mb": 2410, "temperature_c": None}

    folder, without = make(gpu=[seen]), make("none")

    for page in PAGES:
        assert "curve 0: NVIDIA T4 71 % 2,410 61.2 1,400 1,005 –" in words_of(folder / page)
        assert "utilisation" not in words_of(without / page)
    assert [seen] == told(folder)["gpu"]
    assert "gpu" not in told(without)
