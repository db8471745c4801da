"""The planner's figures against worked examples: scaling law, cost, concurrency, knee, intervals, where time goes."""

import html
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marline.report._cost import per_million
from marline.report._interval import gain_bounds, interval
from marline.report._knee import bracket, knee
from marline.report._raw import Seen
from marline.report._scaling import fit, scaling, usl

Make = Callable[..., Path]
PAGES = ["report.html", "report.md"]
OUTLOOK = {
    "load": [
        {
            "factor": factor,
            "rps": 27.2 * factor,
            "p50_ms": 60.0 * factor,
            "p95_ms": 100.0 * factor,
            "p99_ms": 150.0 * factor,
            "tail_ms": 150.0 * factor,
            "mean_batch": 2.0 * factor,
            "shares": {"queue": 0.3, "batch": 0.1, "overhead": 0.05, "pre": 0.05, "inference": 0.4, "post": 0.05, "http": 0.05},
        }
        for factor in (0.5, 1.0, 1.5)
    ],
    "objective": [
        {
            "factor": factor,
            "rps": 28.0 * factor,
            "best_rps": 30.0 * factor,
            "best_batch_size": 8,
            "best_max_batch_delay_ms": 2,
            "best_workers": 1,
        }
        for factor in (0.8, 1.0, 1.2)
    ],
    "workers": [
        {"workers": 1, "rps": 100.0},
        {"workers": 2, "rps": 180.0},
        {"workers": 3, "rps": 240.0},
        {"workers": 4, "rps": 283.0},
    ],
}


def words_of(page: Path) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>|[|*\\]", " ", page.read_text())).split())


def told(folder: Path) -> Any:
    return json.loads((folder / "report.json").read_text())


def test_the_scaling_law_agrees_with_a_published_fit() -> None:
    """The SPEC SDM91 benchmark on a SPARCcenter 2000, as in the R package usl: its tests hold peak 96.51956, limit 3245.589."""
    load, throughput = (1, 18, 36, 72, 108, 144, 216), (64.9, 995.9, 1652.4, 1853.2, 1828.9, 1775.0, 1702.2)

    found = fit(dict(zip(load, throughput, strict=True)))

    assert pytest.approx(96.51956, rel=1e-4) == found["peak_workers"]
    assert pytest.approx(3245.589, rel=1e-4) == found["rate_rps"] / found["contention"]
    assert 432 == found["limit_workers"]


def test_the_scaling_law_finds_the_parameters_its_points_were_made_with() -> None:
    """Six points of contention 0.02 and coherency 0.02, rounded to four places: the other worked example of that package."""
    found = fit({1: 1.0, 2: 1.8868, 4: 3.0769, 6: 3.5294, 8: 3.5398, 10: 3.3557})

    assert (pytest.approx(0.02, rel=0.01), pytest.approx(0.02, rel=0.01)) == (found["contention"], found["coherency"])
    assert (7.0, 1.0) == (found["peak_workers"], found["r2"])


@given(rate=st.floats(1, 1e4), contention=st.floats(0, 0.5), coherency=st.floats(0, 0.05))
def test_the_scaling_law_fits_its_own_points(rate: float, contention: float, coherency: float) -> None:
    points = {count: usl(count, rate, contention, coherency) for count in (1, 2, 4, 8)}

    found = fit(points)

    law = [usl(count, found["rate_rps"], found["contention"], found["coherency"]) for count in points]
    assert pytest.approx(list(points.values()), rel=0.01) == law


def test_a_peak_beyond_twice_what_is_known_is_not_stated() -> None:
    assert fit({count: float(usl(count, 10, 0.01, 0.0001)) for count in (1, 2, 3, 4)})["peak_workers"] is None


def test_simulated_workers_are_said_to_be_simulated_and_none_are_invented() -> None:
    report = {"predictions": [{"workers": 1, "rps": 27.0}], "outlook": OUTLOOK}

    simulated, nothing = scaling(report, []), scaling({**report, "outlook": None}, [])

    assert ("simulated", [1, 2, 3, 4]) == (simulated["origin"], [one["workers"] for one in simulated["points"]])
    assert nothing["fit"] is None
    assert "the law has three parameters" in nothing["reason"]


def test_cost_per_million_is_the_price_over_the_requests_of_an_hour() -> None:
    """3.6 an hour at 1,000 requests/s: 3.6 million requests an hour, so 1 for a million."""
    assert (1.0, 2.0) == (per_million(3.6, 1000.0), per_million(3.6, 500.0))


def test_both_pages_show_what_a_million_requests_cost(make: Make) -> None:
    folder = make(price=0.526)
    planned, full = told(folder)["cost"]["rows"]

    assert (0.7, 1.0) == (planned["utilisation"], full["utilisation"])
    assert pytest.approx(0.526 / 3600 / 27.2 * 1e6) == full["per_million"] == pytest.approx(0.7 * planned["per_million"])
    for page in PAGES:
        assert "USD per million" in (folder / page).read_text()
        assert f"{full['per_million']:.2f}" in words_of(folder / page)


def test_without_a_price_there_is_no_cost_and_the_page_says_why(usual: Path) -> None:
    assert [] == told(usual)["cost"]["rows"]
    for page in PAGES:
        assert "No cost can be given: report.price_per_hour is not set." in words_of(usual / page)


def seen(*loads: tuple[float, float, float | None, bool]) -> list[Seen]:
    """Trials at a rate, with what was answered, the mean latency (None: lost) and whether the SLO held."""
    rows: Any = None
    return [
        Seen(
            {"offered_rps": rate},
            rows,
            {"trial": place, "answered_rps": answered, "within": within, "power": answered / mean_ms if mean_ms else 0.0},
        )
        for place, (rate, answered, mean_ms, within) in enumerate(loads, 1)
    ]


def test_the_knee_is_the_load_with_the_most_throughput_per_latency() -> None:
    """By hand: 10/1 = 10, 20/1.25 = 16, 30/2.5 = 12, 31/20 = 1.55; the last 33 % more load brings 3 %."""
    found = knee(seen((10, 10, 1.0, True), (20, 20, 1.25, True), (30, 30, 2.5, True), (40, 31, 20.0, False)))

    assert (20, None) == (found["knee_rps"], found["edge"])
    assert (30, 0.333) == (found["plateau_rps"], found["plateau_step"])
    assert (30, 40) == (found["held_rps"], found["missed_rps"])


def test_a_knee_at_the_end_of_what_was_measured_says_so_and_two_loads_have_none() -> None:
    rising = seen((10, 10, 1.0, True), (20, 20, 1.0, True), (30, 30, 1.0, True))

    assert (30, "highest", None, None) == tuple(knee(rising)[key] for key in ("knee_rps", "edge", "plateau_rps", "missed_rps"))
    assert knee(rising[:2])["knee_rps"] is None
    assert knee(seen((10, 10, 1.0, True), (10.2, 10.1, 1.0, True), (10.3, 10.1, 1.0, True)))["plateau_rps"] is None  # no step


def test_a_configuration_that_held_nothing_has_no_knee_and_a_bracket_open_below() -> None:
    found = knee(seen((10, 9, None, False), (20, 9, None, False), (30, 9, None, False)))

    assert (None, None, 10) == (found["knee_rps"], found["held_rps"], found["missed_rps"])


def test_of_trials_that_contradict_each_other_the_later_is_believed() -> None:
    later_missed = seen((167, 160, 1.0, True), (139, 130, None, False), (97, 97, 1.0, True))
    later_held = seen((20, 20, 1.0, False), (30, 30, 1.0, True), (40, 30, 1.0, False))

    assert {"held_rps": 97, "missed_rps": 139} == bracket(later_missed)
    assert {"held_rps": 30, "missed_rps": 40} == bracket(later_held)


def test_an_interval_holds_the_true_percentile_as_often_as_it_says() -> None:
    """95 % of the time on independent samples; fewer than 85 of 100 has a chance below 1 in 10,000."""
    truth = 10 * -math.log(0.05)  # the p95 of exponential latencies with mean 10 ms
    draws = np.random.default_rng(7)
    found = [interval(draws.exponential(10, 4000), 95, 60.0) for _ in range(100)]

    assert 85 <= sum(one is not None and one["low_ms"] <= truth <= one["high_ms"] for one in found)
    assert {40 <= one["blocks"] <= 60 for one in found if one is not None} == {True}


def test_what_is_late_together_makes_the_interval_wider() -> None:
    """The same latencies, once scattered, once with all slow ones in one stretch."""
    slow = np.where(np.arange(4000) % 50 == 0, 90.0, 10.0)
    together = np.sort(slow)

    scattered, stretch = interval(slow, 98.5, 120.0), interval(together, 98.5, 120.0)

    assert scattered is not None
    assert stretch is not None
    assert (90.0, 90.0) == (scattered["low_ms"], scattered["high_ms"])
    assert (10.0, 90.0) == (stretch["low_ms"], stretch["high_ms"])


def test_a_trial_too_short_for_ten_blocks_has_no_interval() -> None:
    assert interval(np.full(1000, 100.0), 99, 19.9) is None
    assert interval(np.full(1000, np.inf), 99, 1000.0) is None


def test_a_gain_is_bounded_by_what_the_trials_of_both_exclude() -> None:
    chosen, default = {"held_rps": 30.0, "missed_rps": 40.0}, {"held_rps": 10.0, "missed_rps": 15.0}

    assert {"low": 2.0, "high": 4.0} == gain_bounds(chosen, default)
    assert {"low": None, "high": None} == gain_bounds({**chosen, "missed_rps": None}, {**default, "missed_rps": None})


def rows_of(folder: Path, number: int) -> Any:
    with np.load(folder.parent / "tune" / "samples" / f"{number:03}.npz") as stored:
        return {name: stored[name] for name in stored.files}


def test_time_is_split_into_what_was_measured_and_what_is_left_of_it(make: Make, usual: Path) -> None:
    trials = told(usual)["trials"]
    trials[22]["stages_ms"] = {"pre_ms": 8.0, "inference_ms": 50.0, "post_ms": 0.5}
    folder = make("split", trials=trials, outlook=OUTLOOK)
    rows, split = rows_of(folder, 23), told(folder)["breakdown"]

    total_ms = float(np.mean(rows["finished_s"] - rows["scheduled_s"])) * 1e3
    lag, wait, *stages = split["parts"]
    assert (
        pytest.approx(total_ms, abs=1e-3)
        == split["total_ms"]
        == pytest.approx(sum(one["ms"] for one in split["parts"]), abs=0.01)
    )
    assert ("measured", pytest.approx(0.4, abs=1e-3)) == (lag["origin"], lag["ms"])
    assert [("preprocess", 8.0), ("inference", 50.0), ("postprocess", 0.5)] == [(one["part"], one["ms"]) for one in stages]
    assert {"simulated"} == {one["origin"] for one in split["within"]}
    assert pytest.approx(wait["ms"], abs=0.01) == sum(one["ms"] for one in split["within"])
    queue, batch, server = split["within"]
    assert (pytest.approx(3.0, rel=1e-3), pytest.approx(1.0, rel=1e-3)) == (
        queue["ms"] / batch["ms"],
        server["ms"] / batch["ms"],
    )
    for page in PAGES:
        assert "of it queue" in words_of(folder / page)
        assert "How the wait divides is simulated" in words_of(folder / page)


def test_stages_of_the_service_curve_are_not_passed_off_as_measured_under_load(usual: Path) -> None:
    origins: Sequence[str] = [part["origin"] for part in told(usual)["breakdown"]["parts"]]

    assert ["measured", "total less the other parts", *["service curve"] * 3] == origins
    for page in PAGES:
        assert "measured, but not under that load" in words_of(usual / page)
        assert "How the wait divides is not known; at most 2 ms of it is for others of a batch" in words_of(usual / page)


def test_concurrency_is_rate_times_latency_and_the_queue_holds_what_is_still_in_time(usual: Path) -> None:
    told_ = told(usual)
    resources, rows = told_["resources"], rows_of(usual, 23)
    mean_s = float(np.mean(rows["finished_s"] - rows["scheduled_s"]))

    assert pytest.approx(27.2 * mean_s, rel=1e-4) == resources["concurrency"]
    assert pytest.approx(0.7 * 27.2 * mean_s, rel=1e-4) == resources["planned_concurrency"]
    assert math.floor((183.0 - 4 * 29.8) * 4 / (4 * 29.8)) == resources["queue_bound"]
    assert (math.ceil(2 * 27.2 * 0.183), 8, None) == tuple(
        resources[key] for key in ("connections", "job_queue_size", "power_w")
    )


def test_energy_is_power_over_throughput_where_every_gpu_tells_its_power(make: Make) -> None:
    gpu = {
        "gpu": 0,
        "name": "T4",
        "samples": 9,
        "utilisation_percent": 80,
        "clock_mhz": 1,
        "lowest_clock_mhz": 1,
        "memory_mb": 1,
    }
    more = {"memory_before_mb": 1, "temperature_c": 60}
    known, unknown = ([{**gpu, **more, "phase": "trial 23", "power_w": power}] for power in (68.0, None))

    assert pytest.approx(68.0 / 27.2, rel=1e-3) == told(make("known", gpu=known))["resources"]["joules_per_request"]
    assert told(make("unknown", gpu=unknown))["resources"]["joules_per_request"] is None


def test_other_objectives_and_loads_are_measured_or_said_to_be_simulated(make: Make) -> None:
    folder = make(outlook=OUTLOOK)
    less, same, more = told(folder)["sensitivity"]["objective"]

    assert (146.4, 183.0, 219.6) == (less["slo_ms"], same["slo_ms"], more["slo_ms"])
    assert less["measured_rps"] < same["measured_rps"] == 27.2 <= more["measured_rps"]
    half, whole, _ = told(folder)["sensitivity"]["load"]
    assert (13.6, None, 75.0) == (half["rps"], half["measured"], half["simulated"]["tail_ms"])
    assert (27.2, 150.0) == (whole["measured"]["rps"], whole["simulated"]["tail_ms"])
    for page in PAGES:
        assert "as it is 183 27.2 28.0 +0 % 30.0 batch 8, delay 2 ms" in words_of(folder / page)
        assert "+20 % 220 " in words_of(folder / page) or "+20 % 219.6 " in words_of(folder / page)


def test_the_verdict_says_what_it_rests_on(usual: Path) -> None:
    evidence = told(usual)["verdict"]["evidence"]

    assert "23 measurements over 7 configurations (10 were predicted)." in evidence
    assert "No interval of p99 can be given" in evidence or "CI" in evidence


def test_nothing_is_said_of_a_run_without_a_rate(make: Make, usual: Path) -> None:
    none = {**told(usual)["chosen"], "rps": 0, "slo_met": False}
    folder = make("none", chosen=none, gain=None, price=1.0)

    for key in ("breakdown", "resources", "sensitivity"):
        assert told(folder)[key] is None
    for page in PAGES:
        assert "No cost can be given: no rate was within the SLO." in words_of(folder / page)
    assert not (folder / "latency_split.svg").exists()


def test_a_picture_has_its_figures_where_the_pointer_is(usual: Path) -> None:
    drawn = (usual / "goodput.svg").read_text()

    assert re.search(
        r"<title>batch 4, delay 2 ms, workers 1: offered 27\.2, in time [\d.]+, answered 27\.2 per s</title>", drawn
    )
