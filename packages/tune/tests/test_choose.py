"""What is chosen, on a server that the twin plays with figures the tuner does not know, and with an archive that is real."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import marline.tune
from marline.archive import from_yaml, read_mar
from marline.core import read_config
from marline.tune import Point, Service, Setting, predict, simulate
from marline.tune._choose import Chooser
from marline.tune._limits import _left_out, slo_of, within_curve
from marline.tune._predict import Forecaster

DEFAULT = Setting(1, 100, 1)
Run = Callable[..., tuple[Any, Any]]


def limit_rps(real: Service, setting: Setting) -> float:
    """The highest rate that a server really carries within the objective."""
    return predict(real, [setting], 100.0, 99)[0].rps


def test_public_names() -> None:
    exposed = {name for name in vars(marline.tune) if not name.startswith("_")}

    assert marline.tune.__all__ == sorted(exposed)


@pytest.mark.parametrize("slower", [1.0, 1.4])
def test_few_trials_find_nearly_the_best_and_promise_no_more_than_it_carries(
    slower: float, choose: Run, service: Service, tmp_path: Path
) -> None:
    """Also where the server is slower than the curve and the overheads that the tuner was told."""
    real = replace(service, batch_ms=3 * slower * service.batch_ms, request_ms=slower * service.request_ms)

    choice, chooser = choose(real)

    found = {setting: limit_rps(real, setting) for setting in chooser.forecast.settings}
    assert 0.97 * max(found.values()) <= found[choice.setting]
    assert 0.85 * found[choice.setting] <= choice.chosen["rps"] <= found[choice.setting]
    assert len(chooser.runner.trials) <= 8
    assert ["noise", "noise"] == [trial.purpose for trial in chooser.runner.trials[:2]]
    assert choice.chosen["slo_met"] is choice.default["slo_met"] is True
    assert choice.gain is not None
    assert choice.gain > 3
    tuned = from_yaml(read_mar(chooser.tuned_archive(choice.setting).file).config)
    assert (choice.setting.batch_size, choice.setting.max_batch_delay_ms) == (tuned.batch_size, tuned.max_batch_delay_ms)


@pytest.mark.parametrize("seed", [2, 3])
def test_of_a_device_that_stalls_no_more_is_promised_than_it_carries_in_the_long_run(
    seed: int, choose: Run, service: Service
) -> None:
    """A stall makes many requests late at once and may be missing from a confirmation; the logs of all trials hold some."""
    stalls = np.where(np.arange(100) % 50 == 0, 6.0, 1.0)[:, None]
    points = tuple(Point.of(one.batch, np.array([[0.2, one.p50_ms - 0.3, 0.1]]) * stalls) for one in service.points)
    real = replace(service, points=points)

    choice, chooser = choose(real, f"loadtest.seed={seed}", "tune.confirm_s=24")

    assert 0.4 * limit_rps(real, choice.setting) < choice.chosen["rps"] <= limit_rps(real, choice.setting)
    assert len(chooser.runner.trials) <= 10


def test_the_default_the_winner_and_a_rival_of_another_size_are_all_measured(choose: Run, service: Service) -> None:
    choice, chooser = choose(service)

    tried = {trial.setting for trial in chooser.runner.trials}
    assert {DEFAULT, choice.setting} < tried
    assert choice.runner_up is not None
    assert choice.runner_up["batch_size"] not in {1, choice.setting.batch_size}
    assert len(chooser.forecast.compared) == len(chooser.runner.trials)


def test_the_noise_is_that_of_the_same_load_sent_twice(choose: Run, service: Service) -> None:
    choice, chooser = choose(service)

    first, second = chooser.runner.raw[:2]
    assert (1, 2) == choice.noise.trials
    assert (first.measured.scheduled_s == second.measured.scheduled_s).all()
    assert 1 <= choice.noise.p99 < 1.3
    assert 0 <= choice.noise.rps_floor < 0.2


def test_a_server_whose_longer_trials_are_worse_is_promised_less_or_nothing(choose: Run, service: Service) -> None:
    """Two modes: a stall that the service curve and the short trials did not meet."""
    stalling = tuple(
        Point.of(point.batch, [*point.stages_ms[:-2], *[(0.2, 15 * point.p50_ms, 0.1)] * 2]) for point in service.points
    )
    bad = replace(service, points=stalling)

    choice, _ = choose(lambda purpose: bad if purpose == "confirm" else service)

    arrivals_s = np.cumsum(np.random.default_rng(7).exponential(1 / max(choice.chosen["rps"], 1e-9), 50_000))
    late = np.mean(simulate(bad, choice.setting, arrivals_s) > 100.0)
    assert choice.chosen["rps"] == 0 or late <= 0.01
    assert choice.chosen["rps"] < limit_rps(service, choice.setting)


@pytest.mark.parametrize(("words", "others"), [((), True), (("tune.budget_s=1",), False)])
def test_beyond_the_budget_the_default_and_the_best_have_one_confirmation_each(
    words: tuple[str, ...], others: bool, choose: Run, service: Service
) -> None:
    """Of a server whose longer trials miss the objective."""
    slower = replace(service, http_ms=40.0)

    _, chooser = choose(lambda purpose: slower if purpose == "confirm" else service, *words)

    tried = Counter(trial.setting for trial in chooser.runner.trials if trial.purpose == "confirm")
    assert others == (max(tried.values()) > 1)
    assert DEFAULT in tried
    assert others or len(tried) == 2


def test_a_gain_that_is_not_above_the_noise_is_not_claimed(choose: Run) -> None:
    """Items that cost the same in every batch: batching saves 2 % of the time at most."""
    points = tuple(Point.of(size, [(0.0, 10.0 * size, 0.0)] * 30) for size in (1, 2, 4, 8, 16, 32))
    flat = Service(points=points, batch_ms=0.1, request_ms=0.0, http_ms=1.0, shared=True)

    choice, _ = choose(flat)

    assert choice.setting == DEFAULT
    assert choice.chosen == choice.default
    assert "the default is kept" in choice.warnings[0]


def test_where_nothing_is_within_the_objective_the_remedy_is_named(choose: Run, service: Service) -> None:
    slow = replace(service, http_ms=500.0)

    choice, chooser = choose(slow)

    assert (0.0, False) == (choice.chosen["rps"], choice.chosen["slo_met"])
    assert choice.chosen == choice.default
    assert "Raise tune.slo_ms" in choice.warnings[0]
    tried = chooser.runner.asked[1:]  # of the pair the second, and what follows: each setting at ever lower rates
    assert len(tried) > 2
    assert all(
        later <= rps / 2 for number, (one, rps) in enumerate(tried) for other, later in tried[number + 1 :] if other == one
    )


def test_a_low_rate_is_tried_where_the_twin_says_that_none_holds(choose: Run, service: Service) -> None:
    """A pair that met a stall says that nothing is within the objective; at half the rate there is none."""
    stalling = replace(service, http_ms=150.0)

    choice, chooser = choose(lambda purpose: stalling if purpose == "noise" else service, "tune.batch_sizes=[8]")

    assert choice.chosen["rps"] > 0
    assert choice.chosen["slo_met"]
    assert chooser.runner.trials[2].setting == DEFAULT


def test_an_invalid_trial_is_repeated_told_and_counts_nowhere(choose: Run, service: Service) -> None:
    choice, chooser = choose(service, broken=lambda number: "requests were sent late" if number in {1, 4} else None)

    assert (2, 3) == choice.noise.trials
    invalid = [trial for trial in chooser.runner.trials if not trial.valid]
    assert ["requests were sent late"] * 2 == [trial.invalid_reason for trial in invalid]
    repeated = chooser.runner.asked[3:5]
    assert repeated[0] == repeated[1]
    assert len(chooser.forecast.compared) == len(chooser.runner.trials) - 2


def test_where_the_sender_cannot_follow_the_rate_that_it_can_send_is_found(choose: Run, service: Service) -> None:
    """The service curve promises more than this machine can send: one ceiling for all settings, in few trials."""
    possible = 0.4 * limit_rps(service, Setting(32, 2, 1))

    choice, chooser = choose(service, too_fast_rps=possible)

    assert 0.6 * possible < choice.chosen["rps"] <= possible
    assert len(chooser.runner.trials) <= 14


def test_a_machine_on_which_nothing_is_valid_is_named(choose: Run, service: Service) -> None:
    choice, _ = choose(service, broken=lambda _: "requests were sent late")

    assert (0.0, None) == (choice.chosen["rps"], choice.chosen["slo_met"])
    assert choice.noise is None
    assert "every trial was invalid; requests were sent late. Is the machine busy?" in choice.warnings[0]


def test_a_rate_that_was_measured_is_not_above_the_ceiling_of_what_can_be(choose: Run, service: Service) -> None:
    """A setting whose trials are invalid at a higher rate does not make others equal to what already held more."""
    choice, chooser = choose(service, broken=lambda number: "a worker was replaced" if number in {4, 5} else None)

    held = max(trial.offered_rps for trial in chooser.runner.trials if trial.valid and trial.purpose != "noise")
    assert chooser.forecast.ceiling_rps >= chooser.runner.trials[2].offered_rps
    assert choice.chosen["rps"] >= 0.9 * held


def test_a_winner_that_cannot_be_confirmed_is_not_said_to_carry_no_more(choose: Run, service: Service) -> None:
    """Every longer trial but that of the default."""
    seen: list[str] = []

    def real(purpose: str) -> Service:
        seen.append(purpose)
        return service

    def busy(_: int) -> str | None:
        return "the sender was busy" if seen[-1] == "confirm" and seen.count("confirm") > 1 else None

    choice, _ = choose(real, broken=busy)

    assert choice.setting == DEFAULT
    assert "could not be confirmed: every longer trial was invalid, the last because the sender was busy" in choice.warnings[0]


@pytest.mark.parametrize("strategy", ["predict", "grid", "optuna"])
def test_where_not_even_the_default_is_within_the_limit_of_memory_that_is_said(
    strategy: str, choose: Run, service: Service
) -> None:
    choice, _ = choose(service, f"tune.strategy={strategy}", "tune.max_memory_mb=50")  # 100 MB an item

    assert 0.0 == choice.chosen["rps"]
    assert any("tune.max_memory_mb=50" in warning for warning in choice.warnings)


def test_batches_whose_worker_takes_too_much_memory_are_left(choose: Run, service: Service) -> None:
    choice, chooser = choose(service, "tune.max_memory_mb=900")  # 100 MB an item

    assert choice.setting.batch_size == 8
    assert any("tune.max_memory_mb=900" in (trial.limit or "") for trial in chooser.runner.trials)


def test_the_lowest_latency_is_looked_for_at_one_rate_alone(choose: Run, service: Service) -> None:
    """At a tenth of the capacity whoever waits for others waits for nothing: the default's batches of one are the quickest."""
    busy, chooser = choose(service, "tune.objective=latency", "tune.at_rps=45")
    idle, _ = choose(service, "tune.objective=latency", "tune.at_rps=10")

    assert DEFAULT == idle.setting
    assert 2 == busy.setting.max_batch_delay_ms
    assert busy.chosen["p99_ms"] < busy.default["p99_ms"]
    assert busy.gain > 1
    assert {45.0} == {rps for _, rps in chooser.runner.asked[2:]}


def test_the_cheapest_has_no_more_workers_than_the_rate_needs(choose: Run, service: Service) -> None:
    real = replace(service, shared=False)

    choice, _ = choose(real, "tune.objective=cost", "tune.at_rps=400", "tune.workers=[1,2,4]")

    assert choice.setting.workers == 1
    assert choice.chosen["slo_met"]


def test_more_workers_are_confirmed_where_one_does_not_hold_the_rate(choose: Run, service: Service) -> None:
    """The twin believes that one worker is enough; the longer trials show that only several are."""
    words = ("tune.objective=cost", "tune.at_rps=560", "tune.workers=[1,2]", "tune.batch_sizes=[16,32]")
    quick, slow = replace(service, shared=False), replace(service, shared=False, batch_ms=14.0)

    choice, chooser = choose(lambda purpose: slow if purpose == "confirm" else quick, *words)

    confirmed = [trial.setting.workers for trial in chooser.runner.trials if trial.purpose == "confirm"]
    assert 1 in confirmed
    assert (2, True) == (choice.setting.workers, choice.chosen["slo_met"])


def test_what_is_said_of_the_default_at_one_rate_was_measured_at_it(choose: Run, service: Service) -> None:
    choice, chooser = choose(service, "tune.objective=latency", "tune.at_rps=200", "tune.batch_sizes=[16,32]")

    tried = [trial.offered_rps for trial in chooser.runner.trials if trial.setting == DEFAULT and trial.purpose == "search"]
    assert [200] == [round(rps) for rps in tried]
    assert "TorchServe's default held 200 req/s not within 100 ms" in choice.warnings[0]


def test_a_rate_that_nothing_holds_is_refused_after_what_comes_nearest_was_tried(choose: Run, service: Service) -> None:
    choice, chooser = choose(service, "tune.objective=cost", "tune.at_rps=900", "tune.batch_sizes=[16,32]")

    assert 0.0 == choice.chosen["rps"]
    assert "no configuration was confirmed within 100 ms at 900 req/s; lower tune.at_rps" in choice.warnings[0]
    assert {Setting(32, 2, 1), DEFAULT} == {setting for setting, rps in chooser.runner.asked if rps == 900}


@pytest.mark.parametrize(("number", "threads"), [(1, 2), (2, None)])
def test_fewer_workers_than_were_tried_keep_the_threads_they_had(
    number: int, threads: int | None, simulated: Any, archive: Path, service: Service
) -> None:
    chooser = Chooser(simulated(service, "tune.workers=[1,2]"), archive, Forecaster(service, [DEFAULT], 100.0, 99), threads=2)

    tuned = chooser.tuned_archive(Setting(8, 2, number))

    assert threads == from_yaml(read_mar(tuned.file).config).threads
    assert [threads] * (threads is not None) == [value.now for value in tuned.values if value.key == "handler.threads"]


@pytest.mark.parametrize("strategy", ["grid", "optuna"])
def test_brute_force_and_a_black_box_go_through_the_same_trials(strategy: str, choose: Run, service: Service) -> None:
    words = (f"tune.strategy={strategy}", "tune.batch_sizes=[4,16]", "tune.max_batch_delays_ms=[2]", "tune.budget_s=200")

    choice, chooser = choose(service, *words)

    assert choice.setting.batch_size == 16
    assert choice.gain > 2
    assert {trial.setting for trial in chooser.runner.trials} <= {DEFAULT, Setting(4, 2, 1), Setting(16, 2, 1)}
    assert choice.chosen["rps"] <= limit_rps(service, choice.setting)


@pytest.mark.parametrize(("t1_ms", "expected"), [(4.0, 50.0), (10.0, 50.0), (30.0, 150.0)])
def test_an_automatic_objective_is_five_times_one_request_and_at_least_50_ms(t1_ms: float, expected: float) -> None:
    assert {"percentile": 99, "ms": expected, "origin": "auto"} == slo_of(read_config(["model=digits_cnn"]).config, t1_ms)


def test_batch_sizes_that_the_curve_does_not_reach_are_left_out_and_the_reason_is_told(service: Service) -> None:
    config = read_config(["model=digits_cnn"]).config.tune
    short = replace(service, points=service.points[:3])  # to batches of 4, of which one takes 12 ms

    told = within_curve(config, short.points)

    assert (2, 4) == told.batch_sizes
    assert ["batches of 8 end the worker's memory (507): tune.batch_sizes [8, 16, 32] were not tried"] == _left_out(
        config, told, short, 50.0
    )
    assert "a batch of 4 takes 12 ms, 10 ms are allowed" in _left_out(config, told, short, 10.0)[0]
    assert "archive.job_queue_size=4" in _left_out(config, told, replace(short, queue=4), 50.0)[0]
    assert [] == _left_out(told, told, short, 50.0)


def test_a_configured_objective_is_taken_as_it_is() -> None:
    config = read_config(["model=digits_cnn", "tune.slo_ms=7.5", "tune.percentile=95"]).config

    assert {"percentile": 95, "ms": 7.5, "origin": "config"} == slo_of(config, 4.0)
