import os
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from marline.core import Config, RequestError, Section, read_config, read_state, seal, write_state
from marline.deploy.serve import refuse_served, requested, servable

OLD, NEW, NEWER = "20260101-000000-0001", "20260102-000000-0002", "20260103-000000-0003"


def config_of(*words: str) -> Config:
    return read_config(["model=digits_cnn", *words]).config


def tuned(artifacts: Path, run: str, *, profile: str = "standard", kind: str = "cpu") -> Path:
    out = artifacts / "digits_cnn" / run / "tune"
    out.mkdir(parents=True)
    facts: dict[str, Any] = {"profile": profile, "accelerator": {"kind": kind}}
    seal(out, model="digits_cnn", config=Section(), inputs=[], facts=facts, started=time.monotonic())
    return out


def test_the_newest_run_is_served(tmp_path: Path) -> None:
    tuned(tmp_path, OLD)
    newest = tuned(tmp_path, NEW)

    assert newest == servable(config_of(), tmp_path).folder


def test_smoke_and_emulated_runs_are_passed_over(tmp_path: Path) -> None:
    shippable = tuned(tmp_path, OLD)
    tuned(tmp_path, NEW, kind="emulated")
    tuned(tmp_path, NEWER, profile="smoke")

    assert shippable == servable(config_of(), tmp_path).folder


@pytest.mark.parametrize(("gate", "place"), [({"state": "refused"}, 0), ({"state": "passed"}, 1), (None, 1)])
def test_a_run_that_its_gate_refused_is_passed_over(tmp_path: Path, gate: dict[str, str] | None, place: int) -> None:
    both = [tuned(tmp_path, OLD), tuned(tmp_path, NEW)]
    report = both[1].with_name("report")
    report.mkdir()
    seal(report, model="digits_cnn", config=Section(), inputs=[], facts={"gate": gate}, started=time.monotonic())

    assert both[place] == servable(config_of(), tmp_path).folder


def test_a_run_that_is_named_is_served_whatever_it_is(tmp_path: Path) -> None:
    smoke = tuned(tmp_path, OLD, profile="smoke")

    assert smoke == servable(config_of(f"run={OLD}"), tmp_path).folder


def test_without_a_servable_run_the_command_that_makes_one_is_named(tmp_path: Path) -> None:
    tuned(tmp_path, OLD, profile="smoke")

    with pytest.raises(RequestError, match="nox -s pipeline -- model=digits_cnn, or name a run: run=RUN"):
        servable(config_of(), tmp_path)


def test_a_run_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="stage tune is not finished"):
        servable(config_of(f"run={OLD}"), tmp_path)


def test_the_command_exits_with_two_where_there_is_nothing_to_serve(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "marline.deploy.serve", "model=digits_cnn", f"artifacts={tmp_path}"]

    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert (2, "") == (refused.returncode, refused.stdout)
    assert "Traceback" not in refused.stderr


def served_by(pid: int, token_file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(home))
    url = "http://127.0.0.1:4711/predictions/digits_cnn"
    write_state("digits_cnn", {"pid": pid, "predictions_url": url, "token_file": str(token_file)})


def test_a_model_that_is_served_is_not_served_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token_file = tmp_path / "token.json"
    token_file.touch()
    served_by(os.getpid(), token_file, tmp_path, monkeypatch)

    with pytest.raises(RequestError, match=f"by process {os.getpid()} at port 4711; .* nox -s swap -- model=digits_cnn"):
        refuse_served([config_of()])

    token_file.unlink()  # the server is gone, and its pid another's
    refuse_served([config_of()])


def test_a_model_whose_server_was_killed_is_served_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(60)
    (tmp_path / "token.json").touch()
    served_by(ended.pid, tmp_path / "token.json", tmp_path, monkeypatch)

    refuse_served([config_of()])

    assert read_state("digits_cnn") is None


def test_the_state_of_a_server_is_its_owner_s_alone(tmp_path: Path) -> None:
    code = "from marline.core import write_state; print(write_state('digits_cnn', {'token': 't'}))"
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}

    shown = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=60)

    assert 0o600 == stat.S_IMODE(Path(shown.stdout.strip()).stat().st_mode)


def test_models_of_one_server_are_named_together() -> None:
    configs = requested(["model=digits_cnn,minilm", "deploy.token_min=30"])

    assert [("digits_cnn", 30), ("minilm", 30)] == [(config.model, config.deploy.token_min) for config in configs]


def test_a_run_is_of_one_model() -> None:
    with pytest.raises(RequestError, match=rf"run={OLD} is a run of one model, and 2 are named"):
        requested(["model=digits_cnn,minilm", f"run={OLD}"])


def test_a_swap_without_a_server_names_the_command_that_starts_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "marline.deploy._swap_command", "model=digits_cnn", f"artifacts={tmp_path}"]
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}

    refused = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=60)

    assert (2, "") == (refused.returncode, refused.stdout)
    assert "no server of digits_cnn is running; start one with nox -s serve -- model=digits_cnn" in refused.stderr
