import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.core import Config, Manifest, RequestError, read_config, read_manifest
from marline.deploy import deliver, refuse_random
from marline.deploy._targets import _written

Tuned = Callable[..., Manifest]


def config_of(target: str, *words: str) -> Config:
    return read_config(["model=digits_cnn", f"deploy.target={target}", *words]).config


@pytest.mark.parametrize("target", ["remote", "compose", "kubernetes"])
@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"weights": "random"}, r"digits_cnn has random weights \(seed 0\)"),
        ({"profile": "smoke"}, "run .* is of profile smoke"),
        ({"kind": "emulated"}, r"was measured on an emulated accelerator \(rn50\)"),
    ],
)
def test_what_cannot_be_trusted_stays_here(tuned: Tuned, target: str, told: dict[str, str], why: str) -> None:
    run = tuned(**told).folder.parent

    with pytest.raises(RequestError, match=why):
        deliver(config_of(target), run)
    assert {"load", "export", "tune"} == {each.name for each in run.iterdir()}


def test_random_weights_are_refused_as_soon_as_they_are_known(tuned: Tuned) -> None:
    loaded = read_manifest(tuned(weights="random").folder.parent / "load")

    refuse_random(config_of("local"), loaded)
    with pytest.raises(RequestError, match=r"load\.weights=FILE"):
        refuse_random(config_of("compose"), loaded)


def test_the_local_target_gets_nothing(tuned: Tuned) -> None:
    assert "" == deliver(config_of("local"), tuned(weights="random").folder.parent)


@pytest.mark.parametrize("target", ["compose", "kubernetes"])
def test_files_are_written_beside_the_stages_and_again_over_themselves(tuned: Tuned, target: str) -> None:
    run = tuned().folder.parent

    for _ in range(2):
        told = deliver(config_of(target), run)

    assert str(run / target) in told
    assert {"load", "export", "tune", target} == {each.name for each in run.iterdir()}
    assert (run / target / "image" / "store" / "digits_cnn.mar").is_file()


def test_a_delivery_that_breaks_leaves_the_files_of_the_one_before(tuned: Tuned) -> None:
    manifest = tuned()
    run = manifest.folder.parent
    deliver(config_of("compose"), run)
    before = {file: file.read_bytes() for file in (run / "compose").rglob("*") if file.is_file()}
    broken = manifest.model_copy(update={"facts": {**manifest.facts, "tuned": {"archive": "tuned"}}})

    with pytest.raises(Exception, match="tuned"):
        _written(config_of("compose"), broken, run)

    assert before == {file: file.read_bytes() for file in (run / "compose").rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["profile=smoke"], "profile from"),
        (["accelerator=rn50_t4_pytorch_eager_amp"], "accelerator from the command line"),
        (["load.weights=random"], "load.weights from the command line"),
    ],
)
def test_a_request_that_would_be_refused_at_its_end_is_refused_at_once(words: list[str], named: str) -> None:
    with pytest.raises(RequestError, match=f"takes no smoke runs, no emulated ones and no random weights: change {named}"):
        config_of("kubernetes", *words)


def command(*words: str) -> Any:
    line = [sys.executable, "-m", "marline.deploy.target", "model=digits_cnn", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_brings_the_newest_run_to_a_target(tuned: Tuned, tmp_path: Path) -> None:
    run = tuned().folder.parent

    done = command("deploy.target=compose", f"artifacts={tmp_path / 'artifacts'}")

    assert (0, "") == (done.returncode, done.stderr)
    assert str(run / "compose") in done.stdout
    assert (run / "compose" / "compose.yaml").is_file()


def test_the_command_refuses_a_run_that_may_not_leave(tuned: Tuned, tmp_path: Path) -> None:
    run = tuned(profile="smoke").folder.parent

    done = command("deploy.target=compose", f"artifacts={tmp_path / 'artifacts'}", f"run={run.name}")

    assert (2, "") == (done.returncode, done.stdout)
    assert f"run {run.name} is of profile smoke" in done.stderr
