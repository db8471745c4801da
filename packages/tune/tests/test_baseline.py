"""The load that confirmed an earlier run is sent again, as it was, and decides nothing in this one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marline.archive import from_yaml, read_mar
from marline.core import read_config
from marline.tune import Baseline, Service, Setting
from marline.tune._baseline import ATTEMPTS, send_baseline
from marline.tune._tune import _journal

EARLIER = Baseline(setting=Setting(4, 5, 1), rps=61.5, seconds=17.0, warmup_s=1.5, seed=77)
Run = Callable[..., tuple[Any, Any]]


def test_the_very_load_is_sent_to_the_archive_with_the_setting_of_the_earlier_run(choose: Run, service: Service) -> None:
    _, chooser = choose(service)
    before = len(chooser.runner.trials)

    said = send_baseline(chooser, EARLIER)

    (trial,) = chooser.runner.trials[before:]
    load = chooser.runner.loads[-1]
    assert [] == said
    assert ("baseline", EARLIER.setting) == (trial.purpose, trial.setting)
    assert (61.5, 17.0, 1.5, 77) == (load.rps, load.seconds, load.warmup_s, load.seed)
    assert {"rps": 61.5, "seconds": 17.0, "warmup_s": 1.5, "arrivals": "poisson", "seed": 77} == trial.as_json()["load"]
    served = from_yaml(read_mar(chooser.runner.bench.out / "tuned" / "digits_cnn.mar").config)
    assert (4, 5) == (served.batch_size, served.max_batch_delay_ms)


def test_a_trial_tells_the_load_that_repeats_it(choose: Run, service: Service) -> None:
    """What `Baseline` is made of: sent again it has the same arrivals."""
    choice, chooser = choose(service)
    confirmed = next(one for one in reversed(chooser.runner.trials) if one.purpose == "confirm")
    told = confirmed.as_json()["load"]
    names = ("rps", "seconds", "warmup_s", "seed")

    send_baseline(chooser, Baseline(setting=choice.setting, **{name: told[name] for name in names}))

    place = chooser.runner.trials.index(confirmed)
    assert (chooser.runner.raw[place].measured.scheduled_s == chooser.runner.raw[-1].measured.scheduled_s).all()


@pytest.mark.parametrize(("broken", "sent"), [(1, 2), (10, ATTEMPTS)])
def test_an_invalid_trial_is_repeated_a_few_times(broken: int, sent: int, choose: Run, service: Service) -> None:
    _, chooser = choose(service)
    before = len(chooser.runner.trials)
    chooser.runner.broken = lambda number: "requests were sent late" if number <= before + broken else None

    send_baseline(chooser, EARLIER)

    assert sent == len(chooser.runner.trials) - before
    assert chooser.runner.trials[-1].valid is (broken < ATTEMPTS)


def test_a_batch_size_that_this_machine_does_not_hold_is_said_and_not_sent(choose: Run, service: Service) -> None:
    _, chooser = choose(service)
    before = len(chooser.runner.trials)

    said = send_baseline(chooser, replace(EARLIER, setting=Setting(64, 5, 1)))

    assert before == len(chooser.runner.trials)
    assert ["the baseline's load was not sent: it needs batches of 64, and larger than 32 are not known here"] == said


def test_an_interrupted_run_finds_it_again_and_one_of_another_baseline_does_not(
    choose: Run, service: Service, tmp_path: Path
) -> None:
    _, first = choose(service, run="first")
    send_baseline(first, EARLIER)
    _, again = choose(service, run="again")
    send_baseline(again, EARLIER)
    config = read_config(["model=digits_cnn"]).config
    accelerator: Any = type("Told", (), {"model_dump": lambda _, mode: {"mode": mode}})()

    folders = [
        _journal(config, accelerator, "a", [], tmp_path / "digits_cnn" / "run" / "tune", one).folder
        for one in (None, EARLIER, EARLIER, replace(EARLIER, seed=78))
    ]

    assert [] == again.runner.asked
    assert [trial.p99_ms for trial in first.runner.trials] == [trial.p99_ms for trial in again.runner.trials]
    assert folders[1] == folders[2]
    assert 3 == len(set(folders))
