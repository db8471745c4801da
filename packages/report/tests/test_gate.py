"""The decision on synthetic queues: the same twice passes, a slower one fires, and what was not measured is no pass."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import stdtrit

from marline.core import GateRefused, ReportConfig, parse_rules
from marline.loadtest import Measurement, percentile
from marline.report import enforce
from marline.report._gate import judged, lines, state_of
from marline.report._metrics import _service_noise, bootstrapped, percentiles, together
from marline.report._ratios import Pair, pair

SECONDS, DRAWS, SURE = 40.0, 100, 0.99
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


def saved(late_ms: NDArray[np.float64], file: Path) -> None:
    """Samples as a load test leaves them; what is lost is infinite."""
    due_s, lost = np.arange(late_ms.size) / 80.0, np.isinf(late_ms)
    told: dict[str, Any] = {"payload": np.zeros(late_ms.size, np.int32), "size_bytes": np.zeros(late_ms.size, np.int64)}
    told |= dict.fromkeys(("mean_in_flight", "little_in_flight", "generator_cpu", "offered_rps", "answered_rps"), 1.0)
    Measurement(
        scheduled_s=due_s,
        sent_s=due_s,
        finished_s=due_s + np.where(lost, 1e3, late_ms) / 1e3,
        status=np.where(lost, 0, 200).astype(np.int16),
        error=np.where(lost, "Timeout", ""),
        in_flight=np.zeros((0, 2)),
        seconds=SECONDS,
        total=late_ms.size,
        **told,
    ).save(file)


class Runs:
    """What reports say of runs: of their own confirmation, and of the baseline's load sent once more."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, seed: int, late_ms: NDArray[np.float64] | None = None, slower: float = 1.0) -> dict[str, Any]:
        """A run whose queue has luck of its own and the arrivals of all others; `late_ms` in place of the baseline's load."""
        tune = self.folder / f"run-{seed}" / "tune"
        tune.mkdir(parents=True)
        own, again = queue(0, seed, slower), queue(0, seed + 100_000, slower) if late_ms is None else late_ms
        saved(own, tune / "1.npz")
        saved(again, tune / "2.npz")
        told = {"valid": True, "invalid_reason": None, "load": LOAD, "seconds": SECONDS}
        metrics = {
            "confidence": SURE,
            "rps": {"value": 80.0, "low": 78.0, "high": 90.0},
            "memory_mb": {"value": 300, "low": 290, "high": 310},
            "cold_start_s": {"value": 7.0, "low": 7.0, "high": 7.0},
            "curve_ms": {"1": {"value": 10.0, "se": 0.01, "blocks": 10, "samples": 40}},
            "noise": dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "service_ms"), 0.0),
            "rate_noise": 0.01,
            **percentiles(own, SECONDS, SURE),
            **told,
            "samples_file": "1.npz",
            "baseline": {**percentiles(again, SECONDS, SURE), **told, "samples_file": "2.npz"},
        }
        return {
            "model": "any",
            "run": f"run-{seed}",
            "tune_folder": tune,
            "chosen": {"batch_size": 4},
            "metrics": metrics,
            "machine": dict.fromkeys(("processor", "cores", "memory_gib", "gpus", "system", "python"), "any"),
            "accelerator": {"kind": "cpu", "name": "any", "time_scale": 1.0},
            "slo": {"percentile": 99, "ms": 200.0},
            "objective": {"name": "rate", "at_rps": None},
            "measured": {"arrivals": "poisson"},
        }


@pytest.fixture
def run(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def gate(fail_if: str, now: dict[str, Any], then: dict[str, Any] | None, **told: str) -> dict[str, Any]:
    words = {
        "target_rps": None,
        "headroom": 0.3,
        "price_per_hour": None,
        "currency": "USD",
        "fail_if": fail_if,
        "baseline": "accepted",
        "undecided": "pass",
    } | told
    found = judged(ReportConfig.model_validate(words), now, then)
    assert found is not None
    return found


def ratios(slower: float = 1.0, rate: float = 80.0) -> list[tuple[float | None, float, float]]:
    """Of p99, of pairs of runs with the same arrivals."""
    found = []
    for seed in range(DRAWS):
        series = queue(seed, seed, 1.0, rate), queue(seed, seed + DRAWS, slower, rate)
        then, now = ({"value": percentile(late_ms, 99), "se": None, "blocks": 0} for late_ms in series)
        found.append(Pair(now, then, together=together(*series, SECONDS)["p99_ms"]).ratio(SURE))
    return found


def fired(text: str, found: Sequence[tuple[float | None, float, float]]) -> float:
    (rule,) = parse_rules(text)
    return [state_of(rule, low, high) for _, low, high in found].count("fired") / len(found)


def test_the_same_twice_passes_as_surely_as_is_said() -> None:
    """Beyond 1.1 never; beyond 1 in one pair of a hundred: 5 of 100 would come once in three hundred such tests."""
    found = ratios()

    assert 0 == fired("p99_ms > 1.1 * baseline", found)
    assert fired("p99_ms > 1 * baseline", found) <= 4 / DRAWS
    real, told = (
        np.log([value or 0.0 for value, _, _ in found]).std(),
        np.median([math.log(high / low) / 2 for _, low, high in found]),
    )
    assert 0.6 < told / stdtrit(12, SURE) / real < 1.4


@pytest.mark.parametrize(("rate", "number"), [(80.0, 1.1), (60.0, 1.1), (30.0, 1.05)])
def test_a_server_slowed_by_a_fifth_fires(rate: float, number: float) -> None:
    assert fired(f"p99_ms > {number} * baseline", ratios(slower=1.2, rate=rate)) >= 0.95


def test_what_the_pair_differed_by_is_not_taken_for_a_change(run: Runs) -> None:
    """Noise that is known makes an interval wider: what fired without it is undecided."""
    now, then = run(1, slower=1.2), run(2)
    calm = gate("p99_ms > 1.1 * baseline", now, then)
    then["metrics"]["noise"] = {"p99_ms": 4.0}
    noisy = gate("p99_ms > 1.1 * baseline", now, then)

    assert ("refused", "fired") == (calm["state"], calm["rules"][0]["state"])
    assert ("passed", "undecided") == (noisy["state"], noisy["rules"][0]["state"])
    assert "refused" == gate("p99_ms > 1.1 * baseline", now, then, undecided="fail")["state"]


def trial_in_worker(ms: float, samples: int = 100) -> dict[str, Any]:
    return {"batch_size": 1, "samples": samples, "mean_batch": 1.0, "stages_ms": {"pre_ms": 1.0, "inference_ms": ms - 1.0}}


def test_what_a_pair_differed_by_in_the_worker_is_what_its_jitter_does_not_explain() -> None:
    """Of 100 batches each with a jitter of 10 %, the means differ by 1.4 % by luck."""
    curve = [{"batch": 1, "stages_ms": np.random.default_rng(0).lognormal(3, 0.1, (4000, 1)).tolist()}]

    by_luck, more = (_service_noise(curve, trial_in_worker(20.0), trial_in_worker(other)) for other in (20.2, 22.0))

    assert 0.0 == by_luck
    assert pytest.approx(math.log(1.1) ** 2 - 2 * 0.1**2 / 100, rel=0.02) == more


def test_without_reports_of_batches_the_latencies_of_the_pair_stand_for_it() -> None:
    curve = [{"batch": 1, "stages_ms": [[20.0]] * 30}]

    assert _service_noise(curve, trial_in_worker(20.0) | {"stages_ms": None}, trial_in_worker(20.0)) is None
    assert _service_noise([{"batch": 2}], trial_in_worker(20.0), trial_in_worker(20.0)) is None


@pytest.mark.parametrize(
    ("noise", "state"), [({"p50_ms": 0.01, "service_ms": 0.0}, "fired"), ({"service_ms": 0.01}, "undecided")]
)
def test_the_time_of_a_batch_is_compared_with_the_noise_of_the_worker_alone(
    run: Runs, noise: dict[str, float], state: str
) -> None:
    now, then = run(1), run(2)
    now["metrics"]["curve_ms"]["1"] = {"value": 12.0, "se": 0.01, "blocks": 10, "samples": 40}
    now["metrics"]["noise"] |= noise

    assert state == gate("t1_ms > 1.1 * baseline", now, then)["rules"][0]["state"]


def test_a_baseline_from_before_the_worker_s_noise_was_told_is_compared_with_that_of_its_latencies(run: Runs) -> None:
    now, then = run(1), run(2)
    now["metrics"]["curve_ms"]["1"] = {"value": 12.0, "se": 0.01, "blocks": 10, "samples": 40}
    then["metrics"]["noise"] = {"p50_ms": 0.01, "p95_ms": 0.01, "p99_ms": 0.01}

    assert "undecided" == gate("t1_ms > 1.1 * baseline", now, then)["rules"][0]["state"]


def test_near_the_limit_a_little_less_capacity_is_no_regression(run: Runs) -> None:
    """t(4) = 47.5 ms is 95 % busy at 80 requests/s: 3 % of capacity are 57 % of latency then; at 10 % they are nothing."""
    busy, idle = (
        {"value": 47.5, "se": 0.01, "blocks": 10, "samples": 40},
        {"value": 5.0, "se": 0.01, "blocks": 10, "samples": 40},
    )
    then, late_ms = run(2), queue(0, 2)

    def state(name: int, slower: float, batch: dict[str, Any], rate_noise: float = 0.01) -> str:
        now = run(name, slower * late_ms)
        then["metrics"]["curve_ms"]["4"], then["metrics"]["rate_noise"] = batch, rate_noise
        return str(gate("p99_ms > 1.1 * baseline", now, then)["rules"][0]["state"])

    assert ["undecided", "fired"] == [state(3, 1.6, busy), state(4, 1.6, idle)]
    assert ["fired", "undecided"] == [state(5, 10.0, busy), state(6, 10.0, busy, rate_noise=0.1)]


def test_a_refusal_carries_the_numbers(run: Runs) -> None:
    found = gate("p99_ms > 1.1 * baseline or t1_ms > 1.1 * baseline", run(1, slower=1.2), run(2))

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


def test_an_invalid_or_missing_trial_is_no_pass(run: Runs) -> None:
    then, late, missing, other = run(1), run(2), run(3), run(4)
    late["metrics"]["baseline"] |= {"valid": False, "invalid_reason": "requests were sent late"}
    missing["metrics"]["baseline"] = None
    other["metrics"]["baseline"]["load"] = LOAD | {"seed": 9}

    for now, said in ((late, "requests were sent late"), (missing, "has not sent the load of 80"), (other, "has not sent")):
        found = gate("p99_ms > 1.1 * baseline", now, then)
        assert ("refused", "invalid") == (found["state"], found["rules"][0]["state"])
        assert said in found["rules"][0]["words"]


def test_lost_requests_are_later_than_any_answer(run: Runs) -> None:
    late_ms = queue(0, 3, slower=1.2)
    late_ms[::20] = np.inf
    now, then = run(1, late_ms), run(2)

    (rule,) = gate("p99_ms > 1.1 * baseline", now, then)["rules"]

    assert ("fired", None, None, None) == (rule["state"], rule["now"], rule["ratio"], rule["high"])
    assert "more than" in rule["words"]


def test_without_the_samples_of_the_baseline_nothing_is_said_of_latency(run: Runs) -> None:
    now, then = run(1, slower=1.2), run(2)
    (then["tune_folder"] / "1.npz").unlink()

    (rule,) = gate("p99_ms > 1.1 * baseline", now, then)["rules"]

    assert ("undecided", "the samples of the baseline's trial are not there, or have other arrivals") == (
        rule["state"],
        rule["words"],
    )


def test_without_a_baseline_only_absolute_rules_are_judged(run: Runs) -> None:
    found = gate("p99_ms > 1.1 * baseline or cold_start_s > 5 or memory_mb > 5000", run(1), None, undecided="fail")

    assert ["unjudged", "fired", "held"] == [rule["state"] for rule in found["rules"]]
    assert "accept=RUN" in found["rules"][0]["words"]
    assert lines(found)[0] == "refused without a baseline"


def test_runs_under_other_conditions_are_not_compared_and_it_is_said_which(run: Runs) -> None:
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
def test_a_rate_is_lower_only_where_a_trial_refuted_it(high: float | None, state: str, run: Runs) -> None:
    """The baseline carries between 78 and 90: below 0.9 of that for sure is what is below 70.2."""
    now, then = run(1), run(2)
    now["metrics"]["rps"] = {"value": 55.0, "low": 50.0, "high": high}

    (rule,) = gate("rps < 0.9 * baseline", now, then)["rules"]

    assert state == rule["state"]
    assert (high is None) == ("no trial of it was too fast" in rule["words"])


def test_few_samples_decide_nothing(run: Runs) -> None:
    assert [None, None, None] == bootstrapped([queue(1, 1)[:9]], [50, 95, 99], 9)
    known = bootstrapped([queue(1, 1)[:200]], [50, 95, 99], 10)
    assert [True, True, False] == [one is not None for one in known]

    late_ms = queue(0, 3, slower=2.0)[:200]
    now, then = run(1, late_ms), run(2)
    saved(late_ms / 2, then["tune_folder"] / "1.npz")
    (rule,) = gate("p99_ms > 1.1 * baseline", now, then)["rules"]

    assert "undecided" == rule["state"]
    assert rule["words"].endswith("200 samples are too few")


def test_of_two_service_times_the_ratio_is_at_the_baseline_s_batch_size(run: Runs) -> None:
    now, then = run(1), run(2)
    now["metrics"]["curve_ms"]["4"] = {"value": 24.0, "se": 0.01, "blocks": 10, "samples": 40}
    assert pair("batch_ms", now, then).is_invalid

    then["metrics"]["curve_ms"]["4"] = {"value": 20.0, "se": 0.01, "blocks": 10, "samples": 40}
    found = pair("batch_ms", now, then)

    value, low, high = found.ratio(SURE)
    assert 1.2 == value
    assert 1.14 < low < 1.2 < high < 1.26
    assert (0.0, float("inf")) == replace(found, noise=None).ratio(SURE)[1:]


def test_a_report_without_rules_says_its_metrics_and_no_baseline(usual: Path) -> None:
    report = json.loads((usual / "report.json").read_text())

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
        assert "REFUSED without a baseline: rps &lt; 100; the numbers are under Baseline" in page
    assert json.loads((folder / "manifest.json").read_text())["facts"]["gate"]["state"] == "refused"
