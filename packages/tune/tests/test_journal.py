"""An interrupted tuning run goes on where it was: nothing is measured twice, and nothing is lost."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marline.core import read_config
from marline.loadtest import read_measurement
from marline.tune import Service, Setting
from marline.tune._journal import Journal
from marline.tune._tune import _journal

TRIALS = [(Setting(1, 100, 1), 20.0, "noise"), (Setting(8, 2, 1), 90.0, "search"), (Setting(8, 2, 1), 80.0, "confirm")]
WORDS = ("tune.trial_s=5", "tune.confirm_s=8")


class Killed(Exception):
    """The process ended in the middle of a trial."""


def test_every_trial_before_the_kill_is_taken_over_and_every_one_after_it_is_measured(
    simulated: Any, service: Service, tmp_path: Path
) -> None:
    (archive := tmp_path / "any.mar").touch()

    def dying(number: int) -> None:
        if number == 3:
            raise Killed

    first = simulated(service, *WORDS, run="first", broken=dying)
    for setting, rps, purpose in TRIALS[:2]:
        first.run(archive, setting, rps, purpose)
    with pytest.raises(Killed):
        first.run(archive, *TRIALS[2])
    again = simulated(service, *WORDS, run="again")
    trials = [again.run(archive, setting, rps, purpose) for setting, rps, purpose in TRIALS]

    assert [(Setting(8, 2, 1), 80.0)] == again.asked
    assert ["first", "first", None] == [trial.run for trial in trials]
    assert [trial.p99_ms for trial in first.trials] == [trial.p99_ms for trial in trials[:2]]
    assert again.spent_s == pytest.approx(sum(trial.seconds for trial in trials))
    kept = [read_measurement(again.bench.out / trial.samples_file).latencies_ms for trial in trials]
    assert (kept[0] == first.raw[0].measured.latencies_ms).all()
    assert "trials 1 to 2 were measured in run first, which was interrupted" in again.interrupted()[0]


def test_a_trial_that_was_not_kept_whole_is_measured_again(simulated: Any, service: Service, tmp_path: Path) -> None:
    """Killed between the raw rows and the entry that says they are there."""
    (archive := tmp_path / "any.mar").touch()
    first = simulated(service, *WORDS, run="first")
    first.run(archive, *TRIALS[0])
    (entry,) = first.journal.folder.glob("*.json")
    entry.unlink()

    again = simulated(service, *WORDS, run="again")
    again.run(archive, *TRIALS[0])

    assert 1 == len(again.asked)


def test_another_request_finds_nothing(simulated: Any, service: Service, tmp_path: Path) -> None:
    (archive := tmp_path / "any.mar").touch()
    simulated(service, *WORDS, run="first").run(archive, *TRIALS[0])

    again = simulated(service, *WORDS, "tune.slo_ms=70", run="again")
    again.run(archive, *TRIALS[0])

    assert 1 == len(again.asked)


def test_what_a_journal_keeps_is_what_it_gives_back(simulated: Any, service: Service, tmp_path: Path) -> None:
    (archive := tmp_path / "any.mar").touch()
    runner = simulated(service, *WORDS, run="first")
    runner.run(archive, *TRIALS[1])

    asked = json.loads(next(runner.journal.folder.glob("*.json")).read_text())["asked"]
    kept = runner.journal.find(asked)

    assert kept is not None
    for name in ("scheduled_s", "finished_s", "status", "error"):
        assert (getattr(kept.measured, name) == getattr(runner.raw[0].measured, name)).all()
    assert (kept.reason, kept.memory_mb, kept.run) == (None, 800.0, "first")
    assert np.isfinite(kept.took_s)


def test_a_fresh_journal_is_empty_and_a_closed_one_is_gone(tmp_path: Path) -> None:
    journal = Journal.of(tmp_path, {"a": 1}, "first", fresh=False, keep=10)
    journal.write("curve", [1, 2])

    kept = Journal.of(tmp_path, {"a": 1}, "again", fresh=False, keep=10)
    assert [1, 2] == kept.read("curve")
    assert Journal.of(tmp_path, {"a": 1}, "again", fresh=True, keep=10).read("curve") is None
    kept.close()
    assert not kept.folder.exists()


def test_only_the_newest_journals_stay(tmp_path: Path) -> None:
    journals = [Journal.of(tmp_path, {"a": turn}, "run", fresh=False, keep=3) for turn in range(6)]

    assert [False] * 3 + [True] * 3 == [journal.folder.exists() for journal in journals]


@pytest.mark.parametrize(
    ("words", "same"),
    [
        ([], True),
        (["report.headroom=0.5"], True),
        (["tune.slo_ms=70"], False),
        (["loadtest.seed=3"], False),
        (["accelerator=rn50_t4_pytorch_eager_amp"], False),
    ],
)
def test_the_key_is_everything_that_decides_what_a_trial_shows(words: list[str], same: bool, tmp_path: Path) -> None:
    (payload := tmp_path / "a.png").write_bytes(b"a")

    def folder(archive_sha256: str, *words: str) -> Path:
        config = read_config(["model=digits_cnn", *words]).config
        accelerator: Any = type("Told", (), {"model_dump": lambda _, mode: {"mode": mode, "name": config.accelerator}})()
        out = tmp_path / "digits_cnn" / "run" / "tune"
        return _journal(config, accelerator, archive_sha256, [payload], out).folder

    assert same == (folder("a") == folder("a", *words))
    assert folder("a") != folder("b")


@pytest.mark.parametrize(("stage", "fresh"), [("tune", True), ("load", True), ("report", False)])
def test_fresh_forgets_what_was_interrupted(stage: str, fresh: bool, tmp_path: Path) -> None:
    accelerator: Any = type("Told", (), {"model_dump": lambda _, mode: {"mode": mode}})()
    out = tmp_path / "digits_cnn" / "run" / "tune"
    config = read_config(["model=digits_cnn"]).config
    _journal(config, accelerator, "a", [], out).write("curve", [1])

    told = read_config(["model=digits_cnn", f"fresh={stage}"]).config

    again = tmp_path / "digits_cnn" / "again" / "tune"
    assert fresh == (_journal(told, accelerator, "a", [], again).read("curve") is None)


def test_a_fresh_run_that_is_tried_once_more_keeps_its_own_trials(tmp_path: Path) -> None:
    Journal.of(tmp_path, {"a": 1}, "before", fresh=False, keep=10).write("curve", [1])
    journal = Journal.of(tmp_path, {"a": 1}, "now", fresh=True, keep=10)
    assert journal.read("curve") is None
    journal.write("curve", [2])

    assert [2] == Journal.of(tmp_path, {"a": 1}, "now", fresh=True, keep=10).read("curve")
