"""The decision on synthetic queues: the same twice passes, a slower one fires, and what was not measured is no pass."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from marline.core import GateRefused, ReportConfig, parse_rules
from marline.report import enforce
from marline.report._gate import judged, lines, state_of
from marline.report._metrics import bootstrapped, percentiles, together
from marline.report._ratios import Pair, pair

SECONDS, DRAWS, SURE = 40.0, 150, 0.99
LOAD = {"batch_size": 4, "max_batch_delay_ms": 2, "workers": 1, "rps": 80.0, "seconds": SECONDS, "warmup_s": 2.0, "seed": 8}
Make = Callable[..., Path]


def queue(arrivals: int, luck: int, slower: float = 1.0, rate: float = 80.0) -> NDArray[np.float64]:
    """Latencies in ms of one server with Poisson arrivals and 10 ms of jittery service; 80 % busy by default.

    Lindley's recursion, W' = max(0, W + S - A), as a sum less its running minimum.
    """
    count = int(rate * SECONDS)
    service_ms = slower * 10 * np.random.default_rng(luck).lognormal(0, 0.1, count)
    steps = service_ms[:-1] - np.random.default_rng(arrivals).exponential(1e3 / rate, count - 1)
    walk = np.concatenate([[0.0], np.cumsum(steps)])
    return walk - np.minimum.accumulate(walk) + service_ms


def run(seed: int, **more: Any) -> dict[str, Any]:
    """What a report says of a run: its own confirmation, and the baseline's load once more."""
    figures = percentiles(queue(seed, seed, **more), SECONDS, SURE)
    again = percentiles(queue(seed + 100_000, seed, **more), SECONDS, SURE)
    plain = {"value": 80.0, "low": 78.0, "high": 90.0}
    metrics = {"confidence": SURE, "rps": plain, "gain": {"value": 2.0, "low": 1.8, "high": 2.2}, **figures, "load": LOAD}
    metrics |= {"noise": dict.fromkeys(figures, 0.0), "cold_start_s": {"value": 7.0, "low": 7.0, "high": 7.0}}
    metrics |= {"memory_mb": {"value": 300, "low": 290, "high": 310}}
    metrics["curve_ms"] = {"1": {"value": 10.0, "se": 0.01, "blocks": 10, "samples": 40}}
    metrics["baseline"] = {**figures | again, "valid": True, "invalid_reason": None, "load": LOAD}
    conditions = {
        "machine": dict.fromkeys(("processor", "cores", "memory_gib", "gpus", "system", "python"), "any"),
        "accelerator": {"kind": "cpu", "name": "any", "time_scale": 1.0},
        "slo": {"percentile": 99, "ms": 200.0},
        "objective": {"name": "rate", "at_rps": None},
        "measured": {"arrivals": "poisson"},
    }
    return {"model": "any", "run": f"run-{seed}", "chosen": {"batch_size": 4}, "metrics": metrics, **conditions}


def gate(fail_if: str, now: dict[str, Any], then: dict[str, Any] | None, **told: str) -> dict[str, Any]:
    words = {"target_rps": None, "headroom": 0.3, "fail_if": fail_if, "baseline": "accepted", "undecided": "pass"} | told
    found = judged(ReportConfig.model_validate(words), now, then)
    assert found is not None
    return found


def fired(number: float, slower: float = 1.0, rate: float = 80.0, *, same_arrivals: bool = True) -> float:
    """The share of pairs of runs in which `p99_ms > number * baseline` fires."""
    (rule,) = parse_rules(f"p99_ms > {number} * baseline")
    states = []
    for seed in range(DRAWS):
        series = queue(seed, seed, 1.0, rate), queue(seed + DRAWS * (not same_arrivals), seed + DRAWS, slower, rate)
        then, now = (percentiles(late_ms, SECONDS, SURE)["p99_ms"] for late_ms in series)
        both = together(*series, SECONDS)["p99_ms"] if same_arrivals else None
        states.append(state_of(rule, *Pair(now, then, together=both).ratio(SURE)[1:]))
    return states.count("fired") / DRAWS


@pytest.mark.parametrize("same_arrivals", [True, False])
def test_the_same_twice_passes_as_surely_as_is_said(same_arrivals: bool) -> None:
    """Beyond 1.1 never; beyond 1 in one pair of a hundred: 6 of 150 would come once in two hundred such tests."""
    assert 0 == fired(1.1, same_arrivals=same_arrivals)
    assert fired(1.0, same_arrivals=same_arrivals) <= 5 / DRAWS


@pytest.mark.parametrize(("rate", "number"), [(80.0, 1.1), (30.0, 1.05)])
def test_a_server_slowed_by_a_fifth_fires(rate: float, number: float) -> None:
    assert fired(number, slower=1.2, rate=rate) >= 0.99


def test_what_the_pair_differed_by_is_not_taken_for_a_change() -> None:
    """Noise that is known makes an interval wider: what fired without it is undecided."""
    now, then = run(1, slower=1.6), run(2)
    calm = gate("p99_ms > 1.1 * baseline", now, then)
    then["metrics"]["noise"] = {"p99_ms": 4.0}
    noisy = gate("p99_ms > 1.1 * baseline", now, then)

    assert ("refused", "fired") == (calm["state"], calm["rules"][0]["state"])
    assert ("passed", "undecided") == (noisy["state"], noisy["rules"][0]["state"])
    assert "refused" == gate("p99_ms > 1.1 * baseline", now, then, undecided="fail")["state"]


def test_a_refusal_carries_the_numbers() -> None:
    found = gate("p99_ms > 1.1 * baseline or t1_ms > 1.1 * baseline", run(1, slower=1.6), run(2))

    with pytest.raises(GateRefused) as refused:
        enforce(found)

    said = str(refused.value).splitlines()
    assert "the gate has refused against run run-2" == said[0]
    rule = found["rules"][0]
    assert rule["low"] > 1.1
    assert f"{rule['now']:,.0f} beside {rule['baseline']:,.0f}"[:3] == said[1].partition("FIRED, ")[2][:3]
    assert "99 % confidence" in said[1]
    assert said[2].startswith("  t1_ms > 1.1 * baseline: not so, 10.0 beside 10.0 is 1.00 ×")
    assert 1 == refused.value.exit_code


def test_an_invalid_or_missing_trial_is_no_pass() -> None:
    then, late, missing, other = run(1), run(2), run(3), run(4)
    late["metrics"]["baseline"] |= {"valid": False, "invalid_reason": "requests were sent late"}
    missing["metrics"]["baseline"] = None
    other["metrics"]["baseline"]["load"] = LOAD | {"seed": 9}

    for now, said in ((late, "requests were sent late"), (missing, "has not sent the load of 80"), (other, "has not sent")):
        found = gate("p99_ms > 1.1 * baseline", now, then)
        assert ("refused", "invalid") == (found["state"], found["rules"][0]["state"])
        assert said in found["rules"][0]["words"]


def test_lost_requests_are_later_than_any_answer() -> None:
    now, then = run(1), run(2)
    late_ms = queue(3, 3, slower=1.6)
    late_ms[::20] = np.inf
    now["metrics"]["baseline"] |= percentiles(late_ms, SECONDS, SURE)

    (rule,) = gate("p99_ms > 1.1 * baseline", now, then)["rules"]

    assert ("fired", None, None, None) == (rule["state"], rule["now"], rule["ratio"], rule["high"])
    assert "more than" in rule["words"]


def test_without_a_baseline_only_absolute_rules_are_judged() -> None:
    found = gate("p99_ms > 1.1 * baseline or cold_start_s > 5 or memory_mb > 5000", run(1), None, undecided="fail")

    assert ["unjudged", "fired", "held"] == [rule["state"] for rule in found["rules"]]
    assert "accept=RUN" in found["rules"][0]["words"]
    assert lines(found)[0] == "refused without a baseline"


def test_runs_under_other_conditions_are_not_compared_and_it_is_said_which() -> None:
    now, then = run(1, slower=1.5), run(2)
    then["slo"] = {"percentile": 99, "ms": 100.0}
    then["machine"] = then["machine"] | {"cores": 4}

    found = gate("p99_ms > 1.1 * baseline", now, then)

    assert "passed" == found["state"]
    assert ["machine.cores is any here and was 4 there", "slo.ms is 200.0 here and was 100.0 there"] == found["differs"]
    assert found["rules"][0]["words"].startswith("not compared, as machine.cores")


@pytest.mark.parametrize(
    ("high", "state"),
    [(60.0, "fired"), (75.0, "undecided"), (None, "undecided")],
)
def test_a_rate_is_lower_only_where_a_trial_refuted_it(high: float | None, state: str) -> None:
    """The baseline carries between 78 and 90: below 0.9 of that for sure is what is below 70.2."""
    now, then = run(1), run(2)
    now["metrics"]["rps"] = {"value": 55.0, "low": 50.0, "high": high}

    (rule,) = gate("rps < 0.9 * baseline", now, then)["rules"]

    assert state == rule["state"]
    assert (high is None) == ("no trial of it was too fast" in rule["words"])


def test_few_samples_decide_nothing() -> None:
    assert [None, None, None] == bootstrapped([queue(1, 1)[:9]], [50, 95, 99], 9)
    known = bootstrapped([queue(1, 1)[:200]], [50, 95, 99], 10)
    assert [True, True, False] == [one is not None for one in known]

    now, then = run(1), run(2)
    now["metrics"]["baseline"] |= percentiles(queue(3, 3, slower=2.0)[:200], SECONDS, SURE)
    (rule,) = gate("p99_ms > 1.1 * baseline", now, then)["rules"]

    assert "undecided" == rule["state"]
    assert rule["words"].endswith("200 samples are too few")


def test_an_interval_is_as_wide_as_series_really_differ() -> None:
    """The bootstrap's deviation beside that of p99 over independent series; blocks of neighbours, as they are late together."""
    series = [percentiles(queue(seed, seed), SECONDS, SURE)["p99_ms"] for seed in range(DRAWS)]
    real = float(np.log([one["value"] for one in series]).std())
    alone = [bootstrapped([queue(seed, seed)], [99], queue(seed, seed).size)[0] or 0.0 for seed in range(20)]

    assert 0.6 < float(np.median([one["se"] for one in series])) / real < 1.4
    assert float(np.median(alone)) < 0.6 * real


def test_of_two_service_times_the_ratio_is_at_the_baseline_s_batch_size() -> None:
    now, then = run(1), run(2)
    now["metrics"]["curve_ms"]["4"] = {"value": 24.0, "se": 0.01, "blocks": 10, "samples": 40}
    assert pair("batch_ms", now, then).is_invalid

    then["metrics"]["curve_ms"]["4"] = {"value": 20.0, "se": 0.01, "blocks": 10, "samples": 40}
    found = pair("batch_ms", now, then)

    value, low, high = found.ratio(SURE)
    assert 1.2 == value
    assert 1.14 < low < 1.2 < high < 1.26
    assert (0.0, float("inf")) == replace(found, noise=None).ratio(SURE)[1:]


def test_a_report_without_rules_says_its_metrics_and_no_baseline(make: Make) -> None:
    report = json.loads((make() / "report.json").read_text())

    assert report["baseline"] is None
    assert {"rps", "gain", "p99_ms", "curve_ms", "noise"} <= report["metrics"].keys()
    assert (27.2, None) == (report["metrics"]["rps"]["value"], report["metrics"]["baseline"])


def test_a_refused_run_has_its_report_all_the_same(make: Make, tmp_path: Path) -> None:
    told = {"fail_if": "rps < 100 or p99_ms > 1.1 * baseline"}

    folder = make(told=told)

    report = json.loads((folder / "report.json").read_text())
    assert ["fired", "unjudged"] == [rule["state"] for rule in report["baseline"]["rules"]]
    for name in ("report.md", "report.html"):
        page = (folder / name).read_text()
        assert "Baseline" in page
        assert "refused without a baseline" in page
    assert json.loads((folder / "manifest.json").read_text())["facts"]["gate"]["state"] == "refused"
