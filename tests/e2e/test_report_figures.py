"""Every figure of a real run's report, computed once more from its raw rows and manifests, with nothing of marline.

What the server alone knows is a fact of tune's result and is compared with that: mean batches, stages, memory.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

pytestmark = pytest.mark.e2e
KEYS = ("batch_size", "max_batch_delay_ms", "workers")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def run(smoke: Any) -> Any:
    assert 0 == smoke.code, smoke.err
    return opened(smoke.run)


def opened(folder: Path) -> Any:
    """The report, the rows of each trial, and the manifests of the stages behind it, wherever they lie."""
    stages = {stage: json.loads((folder / stage / "manifest.json").read_text()) for stage in ("archive", "deploy", "tune")}
    report, result = (json.loads((folder / place).read_text()) for place in ("report/report.json", "tune/result.json"))
    trials = [Trial(folder / "tune", told, report["slo"], number) for number, told in enumerate(report["trials"], 1)]
    report_config = json.loads((folder / "report" / "manifest.json").read_text())["config"]
    return SimpleNamespace(report=report, result=result, trials=trials, stages=stages, config=report_config, folder=folder)


class Trial:
    """One trial from its rows."""

    def __init__(self, tune: Path, told: Row, slo: Row, number: int) -> None:
        self.told, self.number, self.file = told, number, tune / told["samples_file"]
        with np.load(self.file, allow_pickle=False) as stored:
            rows = {name: stored[name] for name in stored.files}
        self.rows, self.seconds = rows, float(rows["seconds"])
        answered = rows["status"] == 200
        self.answered = answered
        self.latency = np.where(answered, 1e3 * (rows["finished_s"] - rows["scheduled_s"]), np.inf)
        self.service = np.where(answered, 1e3 * (rows["finished_s"] - rows["sent_s"]), np.inf)
        self.lag = np.where(np.isnan(rows["sent_s"]), np.inf, 1e3 * (rows["sent_s"] - rows["scheduled_s"]))
        self.offered = len(answered) / self.seconds
        self.tail = rank(self.latency, slo["percentile"])
        self.within = bool(told["valid"] and self.tail <= slo["ms"] and not told["limit"])
        self.goodput = sum(self.latency <= slo["ms"]) / self.seconds
        self.throughput = float(rows["answered_rps"])
        self.power = 0.0 if np.isinf(self.latency).any() else self.throughput / (self.latency.mean() / 1e3)

    def is_of(self, config: Row) -> bool:
        return bool(self.told["valid"]) and all(self.told[key] == config[key] for key in KEYS)


def rank(values: Any, percentile: float) -> float:
    """The nearest rank."""
    return float(sorted(values)[max(0, math.ceil(len(values) * percentile / 100) - 1)])


def close(value: float, digits: float = 2e-3) -> Any:
    """As good as rounding leaves it; infinite is null."""
    return pytest.approx(value, rel=digits, abs=6e-3) if math.isfinite(value) else None


def chosen_trial(run: Any, name: str = "chosen") -> Trial | None:
    config = run.report[name]
    ours = [one for one in run.trials if one.is_of(config) and config["rps"] and one.told["rps"] == config["rps"]]
    return ours[-1] if ours else None


def ladder(run: Any, name: str) -> list[Trial]:
    return sorted((one for one in run.trials if one.is_of(run.report[name])), key=lambda one: float(one.told["offered_rps"]))


def test_every_trial_is_what_its_rows_say(run: Any) -> None:
    assert len(run.trials) == len(run.report["observed"]) > 2
    for one, seen in zip(run.trials, run.report["observed"], strict=True):
        told = one.told
        for name, percentile in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99)):
            assert close(rank(one.latency, percentile)) == told[name]
        assert (close(rank(one.service, 99)), close(rank(one.lag, 99))) == (told["service_p99_ms"], told["lag_p99_ms"])
        assert (len(one.latency), int((~one.answered).sum())) == (told["samples"], told["errors"])
        assert (close(one.offered), close(one.seconds)) == (told["offered_rps"], told["seconds"])
        assert (close(one.goodput), close(one.throughput)) == (seen["goodput_rps"], seen["answered_rps"])
        assert (close(one.tail), close(float(one.latency.mean()))) == (seen["tail_ms"], seen["mean_ms"])
        assert (one.within, close(one.power)) == (seen["within"], seen["power"])
        assert int(one.rows["total"]) - len(one.latency) == seen["warmup_requests"]
        assert (close(float(one.rows["generator_cpu"])), close(float(one.rows["mean_in_flight"]))) == (
            seen["sender_cpu"],
            seen["in_flight"],
        )
        digest = hashlib.sha256(one.file.read_bytes()).hexdigest()
        assert digest == seen["sha256"] == run.stages["tune"]["outputs"][told["samples_file"]]["sha256"]


def test_no_trial_is_called_met_or_missed_that_the_binomial_test_does_not_prove(run: Any) -> None:
    share, slo_ms = 1 - run.report["slo"]["percentile"] / 100, run.report["slo"]["ms"]
    sure = run.stages["tune"]["config"]["confidence"]
    for one in run.trials:
        over, count = int((one.latency > slo_ms).sum()), len(one.latency)
        if one.told["slo_met"] is True:
            assert binom.cdf(over, count, share) <= 1 - sure
        if one.told["slo_met"] is False:
            assert binom.sf(over - 1, count, share) <= 1 - sure


def test_default_chosen_gain_and_noise_are_those_of_their_trials(run: Any) -> None:
    report = run.report
    for name in ("default", "chosen"):
        trial = chosen_trial(run, name)
        assert (trial is None) == (not report[name]["rps"])
        if trial is not None:
            assert close(trial.offered) == report[name]["rps"]
            assert close(rank(trial.latency, 99)) == report[name]["p99_ms"]
            assert len(trial.latency) == report[name]["samples"]
    chosen, default = chosen_trial(run), chosen_trial(run, "default")
    if chosen and default:
        assert close(chosen.offered / default.offered) == report["gain"]
    if report["noise"] is not None:
        one, other = (run.trials[place - 1] for place in report["noise"]["trials"])
        for key, percentile in (("p50", 50), ("p99", 99)):
            pair = rank(one.latency, percentile), rank(other.latency, percentile)
            assert close(max(pair) / min(pair)) == report["noise"][key]


def test_knee_plateau_bracket_and_what_they_bound(run: Any) -> None:
    ours, told = ladder(run, "chosen"), run.report["knee"]
    powers, rates = [one.power for one in ours], [one.told["offered_rps"] for one in ours]
    knee = rates[powers.index(max(powers))] if len(set(rates)) >= 3 and max(powers) > 0 else None
    assert knee == told["knee_rps"]
    steps = [
        one.told["offered_rps"]
        for one, after in itertools.pairwise(ours)
        if after.told["offered_rps"] >= 1.1 * one.told["offered_rps"] and after.throughput < 1.05 * one.throughput
    ]
    assert (steps[0] if steps else None) == told["plateau_rps"]
    brackets = {}
    for name, key in (("chosen", "bracket"), ("default", "default_bracket")):
        told = [(one.number, one.told["offered_rps"], one.within) for one in ladder(run, name)]
        counted = [  # what no later trial of the configuration contradicts
            (rate, within)
            for number, rate, within in told
            if not any(
                after > number and other != within and (at >= rate if other else at <= rate) for after, at, other in told
            )
        ]
        held = max((rate for rate, within in counted if within), default=None)
        missed = min((rate for rate, within in counted if not within), default=None)
        assert {"held_rps": held, "missed_rps": missed} == run.report["confidence"][key]
        brackets[name] = held, missed
    (low, high), (default_low, default_high) = brackets["chosen"], brackets["default"]
    bounds = run.report["confidence"]["gain_bounds"]
    assert (close(low / default_high) if low and default_high else None) == bounds["low"]
    assert (close(high / default_low) if high and default_low else None) == bounds["high"]
    count = len({tuple(one.told[key] for key in KEYS) for one in run.trials})
    assert (len(run.trials), count) == tuple(run.report["confidence"][key] for key in ("measurements", "configurations"))


def test_the_interval_is_that_of_blocks_drawn_again(run: Any) -> None:
    trial, told, percentile = chosen_trial(run), run.report["confidence"]["tail_interval"], run.report["slo"]["percentile"]
    slow_s = math.inf if trial is None else rank(trial.latency, 99) / 1e3
    fits = 0 if trial is None or math.isinf(slow_s) else min(60, len(trial.latency) // 2, int(trial.seconds / (20 * slow_s)))
    assert (fits >= 10) == (told is not None)
    if told is None or trial is None:
        return
    count = len(trial.latency)
    blocks = [trial.latency[[place for place in range(count) if place * fits // count == block]] for block in range(fits)]
    draws = np.random.default_rng(told["seed"])
    found = [rank(np.concatenate([blocks[one] for one in draws.integers(fits, size=fits)]), percentile) for _ in range(1000)]
    assert (fits, close(rank(found, 2.5)), close(rank(found, 97.5))) == (told["blocks"], told["low_ms"], told["high_ms"])


def test_time_concurrency_queue_and_connections(run: Any) -> None:
    trial, report = chosen_trial(run), run.report
    if trial is None:
        assert (None, None) == (report["breakdown"], report["resources"])
        return
    split, told = report["breakdown"], report["resources"]
    total, lag = float(trial.latency[trial.answered].mean()), float(trial.lag[trial.answered].mean())
    parts = {part["part"]: part["ms"] for part in split["parts"]}
    assert (close(total), close(lag), int(trial.answered.sum())) == (
        split["total_ms"],
        parts["dispatch lag"],
        split["requests"],
    )
    stages = run.result["trials"][trial.number - 1].get("stages_ms")
    if stages is not None:
        kept = stages["pre_ms"], stages["inference_ms"], stages["post_ms"]
        assert kept == (parts["preprocess"], parts["inference"], parts["postprocess"])
    rest = total - lag - sum(ms for name, ms in parts.items() if name not in {"dispatch lag", "wait"})
    assert close(rest) == parts["wait"]
    shares = [one["shares"] for one in (report.get("outlook") or {}).get("load", []) if one["factor"] == 1]
    if split["within"]:
        device = 0 if stages is not None else shares[0]["device"]
        waits = shares[0]["queue"] + shares[0]["batch"] + device + shares[0]["overhead"] + shares[0]["http"]
        assert close(rest * shares[0]["queue"] / waits) == next(one["ms"] for one in split["within"] if one["part"] == "queue")
    mean_s = float(trial.latency.mean()) / 1e3
    rate, slo_s = trial.told["offered_rps"], report["slo"]["ms"] / 1e3
    little = rate * mean_s if math.isfinite(mean_s) else math.inf
    assert close(little) == told["concurrency"]
    assert close((1 - run.config["headroom"]) * little) == told["planned_concurrency"]
    size = report["chosen"]["batch_size"]
    curve = sorted((point["batch"], point["p50_ms"]) for point in report["curve"])
    batch_s = float(np.interp(size, [batch for batch, _ in curve], [ms for _, ms in curve])) / 1e3
    queue = math.floor(max(0.0, (slo_s - batch_s) * size / batch_s) * report["chosen"]["workers"])
    assert (queue, math.ceil(2 * rate * slo_s)) == (told["queue_bound"], told["connections"])
    assert trial.told["memory_mb"] == told["memory_mb"]


def test_replicas_and_cost(run: Any) -> None:
    plan, cost, config, trial = run.report["replicas"], run.report["cost"], run.config, chosen_trial(run)
    rate = run.report["chosen"]["rps"]
    assert [1, 1.5, 2, 3] == [row["factor"] for row in plan["plan"]]
    for row in plan["plan"] if plan["reason"] is None else []:
        need = row["target_rps"] / ((1 - config["headroom"]) * rate)
        assert row["replicas"] in {math.ceil(need), round(need)}
        assert row["replicas"] >= need - 1e-9
        assert row["replicas"] < need + 1
        assert row["replicas"] + 1 == row["with_spare"]
        busy = row["target_rps"] / row["replicas"] / rate
        alone = row["target_rps"] / (row["replicas"] - 1) / rate if row["replicas"] > 1 else math.inf
        assert (close(busy), close(alone)) == (row["busy"], row["busy_without_one"])
    price = config["price_per_hour"]
    assert (price is None or trial is None) == (cost["rows"] == [])
    if trial is not None:
        for row in cost["rows"]:
            assert close(price / 3600 / (row["utilisation"] * trial.offered) * 1e6) == row["per_million"]
            assert close(price / 3600 / (row["utilisation"] * trial.goodput) * 1e6) == row["per_million_within_slo"]


def test_the_map_and_other_objectives(run: Any) -> None:
    report = run.report
    for cell in report["map"]:
        held = [one.told for one in run.trials if one.is_of(cell) and one.within]
        if held:
            best = max(held, key=lambda told: told["offered_rps"])
            assert ("measured", best["rps"], best["mean_batch"]) == (cell["origin"], cell["rps"], cell["mean_batch"])
        else:
            told = next(one for one in report["predictions"] if all(one[key] == cell[key] for key in KEYS))
            assert ("predicted", told["rps"], told["mean_batch"]) == (cell["origin"], cell["rps"], cell["mean_batch"])
    if report["sensitivity"] is None:
        assert chosen_trial(run) is None
        return
    ours = ladder(run, "chosen")
    for row in report["sensitivity"]["objective"]:
        limit = row["factor"] * report["slo"]["ms"]
        held = [one.told["offered_rps"] for one in ours if one.tail <= limit and not one.told["limit"]]
        assert max(held, default=None) == row["measured_rps"]
    for row in report["sensitivity"]["load"]:
        wanted = row["factor"] * report["chosen"]["rps"]
        near = min(ours, key=lambda one: abs(one.told["offered_rps"] - wanted))
        seen = {"rps": near.told["offered_rps"], "tail_ms": close(near.tail)}
        assert (seen if abs(near.told["offered_rps"] / wanted - 1) <= 0.1 else None) == row["measured"]


def test_scaling_cold_start_and_effort(run: Any) -> None:
    report = run.report
    measured = {one.told["workers"] for one in run.trials if one.within}
    assert sorted(measured) == report["scaling"]["measured_workers"]
    assert (len({one["workers"] for one in report["scaling"]["points"]}) < 3) == (report["scaling"]["fit"] is None)
    steps = {one["step"]: one["seconds"] for one in report["cold_start"]}
    assert run.stages["deploy"]["facts"]["ready_s"] == steps["archive to READY"]
    assert [None] * 4 == [seconds for step, seconds in steps.items() if step != "archive to READY"]
    archive = run.stages["archive"]
    assert archive["outputs"][archive["facts"]["archive"]]["sha256"] == report["archive"]["sha256"]
    assert sum(not one.told["valid"] for one in run.trials) == report["measured"]["invalid_trials"]
    assert len(run.trials) == report["measured"]["trials"]


@pytest.mark.parametrize("page", ["report.html", "report.md"])
def test_the_pages_show_those_figures(run: Any, page: str) -> None:
    text, report = (run.folder / "report" / page).read_text(), run.report
    shown: Callable[[float], str] = lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: E731
    trial = chosen_trial(run)
    assert report["verdict"]["evidence"].split(".")[0] in text
    if trial is not None:
        assert f"{shown(float(f'{trial.offered:.3g}'))}" in text
        assert f"{len(trial.latency):,}" in text
    for row in report["replicas"]["plan"] if report["replicas"]["reason"] is None else []:
        assert f"{row['factor']:g}×" in text
