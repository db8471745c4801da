"""The commands as a user meets them: exit codes, words, and how soon."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import marline.core

ROOT = Path(__file__).parents[3]
HEAVY = {"torch", "numpy", "prefect", "torchvision", "transformers", "locust"}


def run(*words: str, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    return subprocess.run([sys.executable, *words], cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=60)


def imported(log: str) -> set[str]:
    """Top-level names in the lines of `-X importtime`."""
    return {line.rpartition("|")[2].strip().split(".")[0] for line in log.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=nope"], "resnet50"),
        (["model=resnet50", "tune.slo_mss=3"], "tune.slo_ms"),
        (["model=resnet50", "load.weights=/no/such.safetensors"], "load.weights=auto"),
        (["model"], "model=resnet50"),
        (["model=resnet50", "tune.slo_ms"], "tune.slo_ms=200"),
        (["model=resnet50", "tune.slo_ms=-5"], "tune.slo_ms=200"),
        (["model=resnet50", "tune.slo_ms=abc"], "tune.slo_ms=200"),
    ],
)
def test_the_pipeline_refuses_before_anything_heavy_is_imported(words: list[str], told: str) -> None:
    started = time.monotonic()

    done = run("-X", "importtime", "-m", "pipelines", *words)

    message = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("import time:"))
    assert 2 == done.returncode
    assert message.startswith("pipeline: ")
    assert told in message
    assert "Traceback" not in message
    assert set() == imported(done.stderr) & HEAVY
    assert 3 > time.monotonic() - started


def test_the_config_command_refuses_alike() -> None:
    done = run("-m", "marline.core", "model=resnet50", "tune.slo_ms=abc")

    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("config: tune.slo_ms = 'abc' from the command line is refused")
    assert "Traceback" not in done.stderr


def test_the_config_command_prints_each_value_with_its_origin() -> None:
    done = run("-m", "marline.core", "model=digits_cnn", "tune.slo_ms=25", "profile=smoke")

    lines = {line.split(" = ")[0]: line for line in done.stdout.splitlines()}
    assert 0 == done.returncode
    assert "tune.slo_ms = 25.0" == lines["tune.slo_ms"].partition("#")[0].strip()
    assert [
        "# the command line",
        "# configs/profiles/smoke.yaml",
        "# configs/models/digits_cnn.yaml",
        "# configs/default.yaml",
    ] == [lines[key][lines[key].index("#") :] for key in ("tune.slo_ms", "tune.trial_s", "load.weights", "keep_runs")]


def test_core_imports_nothing_heavy() -> None:
    done = run("-X", "importtime", "-c", "import marline.core")

    assert 0 == done.returncode
    assert "marline" in imported(done.stderr)
    assert set() == imported(done.stderr) & HEAVY


STAGE = """
import sys, time
from marline.core import Manifest, StageError, main, seal

def stage(config, out):
    if config.load.seed:
        raise StageError("seed 0 is the only one that works here; write load.seed=0")
    (out / "made.txt").write_text("made")
    return seal(out, model=config.model, config=config.load, inputs=[], facts={}, started=time.monotonic())

main(stage, "load")
"""


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["model=resnet50"], 0, "load: 1 files in "),
        (["model=resnet50", "load.seed=1"], 1, "load: seed 0 is the only one"),
        (["model=resnet50", "load.seed=-1"], 2, "load: load.seed = -1 from the command line is refused"),
    ],
)
def test_a_stage_command_exits_0_done_1_failed_2_refused(project: Path, words: list[str], code: int, told: str) -> None:
    done = run("-c", STAGE, *words, cwd=project)

    assert code == done.returncode
    assert told in (done.stdout if code == 0 else done.stderr)
    assert "Traceback" not in done.stderr


def test_public_names() -> None:
    exposed = {name for name in vars(marline.core) if not name.startswith("_")}

    assert set(marline.core.__all__) == exposed
