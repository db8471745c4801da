import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

import marline.loadtest
from marline.core import RequestError, project_root, read_config
from marline.loadtest import Target, read_measurement

Serve = Callable[..., Target]

RUN = [sys.executable, "-m", "marline.loadtest", "model=digits_cnn"]
# The same with a lock of its own: a test must not wait for whoever else measures on this machine.
ALONE = (
    "import sys; from pathlib import Path; from marline.loadtest.__main__ import main; "
    "raise SystemExit(main(sys.argv[2:], Path(sys.argv[1])))"
)
# Writes the state file as serve does: in the process whose state folder it is.
STATE = "import json, sys; from marline.core import write_state; write_state('digits_cnn', json.loads(sys.argv[1]))"


def test_public_names() -> None:
    exposed = {name for name in vars(marline.loadtest) if not name.startswith("_")}

    assert marline.loadtest.__all__ == sorted(exposed)


def test_without_a_server_the_request_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    refused = subprocess.run(RUN, env=_environment(tmp_path), capture_output=True, text=True, check=False, timeout=60)

    assert 2 == refused.returncode
    assert "nox -s serve -- model=digits_cnn" in refused.stderr
    assert "" == refused.stdout


def test_the_running_server_is_loaded_and_shown(serve: Serve, payload: Path, tmp_path: Path) -> None:
    _write_state(serve().url, payload, tmp_path)
    words = [f"artifacts={tmp_path / 'artifacts'}", "seconds=1", "warmup_s=0", "loadtest.rps=40"]

    shown = subprocess.run(
        [*_alone(tmp_path), *words], env=_environment(tmp_path), capture_output=True, text=True, check=False, timeout=60
    )

    assert "" == shown.stderr
    assert "latency from due" in shown.stdout
    samples = Path(shown.stdout.split("raw samples: ")[1].splitlines()[0])
    assert samples.is_file()
    assert (samples.parent / "locust.html").is_file()
    assert ("valid              yes" in shown.stdout) == (shown.returncode == 0)
    summary = json.loads((samples.parent / "summary.json").read_text())
    digest = hashlib.sha256(samples.read_bytes()).hexdigest()
    assert digest == summary["samples"]["sha256"]
    assert 40 == read_measurement(samples).scheduled_s.size
    assert digest in shown.stdout
    assert (40, 0, "poisson") == (summary["figures"]["samples"], summary["load"]["seed"], summary["load"]["arrivals"])
    assert {"python", "locust", "gevent", "numpy"} == set(summary["versions"])
    assert (summary["figures"]["invalid_reason"] is None) == (shown.returncode == 0)
    assert f"p99 {summary['figures']['latency_ms']['p99']:.1f} ms over 40 samples" in shown.stdout


def test_a_sweep_shows_a_line_for_each_phase(serve: Serve, payload: Path, tmp_path: Path) -> None:
    _write_state(serve().url, payload, tmp_path)
    words = [f"artifacts={tmp_path / 'artifacts'}", "loadtest.shape=sweep", "loadtest.seconds=3.5", "loadtest.arrivals=bursty"]

    shown = subprocess.run(
        [*_alone(tmp_path), *words], env=_environment(tmp_path), capture_output=True, text=True, check=False, timeout=60
    )

    assert "" == shown.stderr
    assert "sending 20 requests/s (bursty: gamma gaps, coefficient of variation 2, shape sweep)" in shown.stdout
    table = shown.stdout.partition("\n  phase ")[2].splitlines()[1:8]
    assert ["25%", "50%", "75%", "100%", "75%", "50%", "25%"] == [line.split()[0] for line in table]


def test_too_few_users_are_warned_of(serve: Serve, payload: Path, tmp_path: Path) -> None:
    _write_state(serve(delay_s=0.01).url, payload, tmp_path, batch_size=8, workers=1)
    words = [f"artifacts={tmp_path / 'artifacts'}", "loadtest.users=2", "loadtest.seconds=1"]

    shown = subprocess.run(
        [*_alone(tmp_path), *words], env=_environment(tmp_path), capture_output=True, text=True, check=False, timeout=60
    )

    assert "WARNING: 2 users never fill a batch of 8" in shown.stdout
    assert "32 users" in shown.stdout
    assert "latency from due" not in shown.stdout
    assert "objective" not in shown.stdout


def test_a_hostile_recording_is_refused_by_its_line(serve: Serve, payload: Path, tmp_path: Path) -> None:
    _write_state(serve().url, payload, tmp_path)
    (tmp_path / "times").write_text("1\n2\n$(reboot)\n")
    words = [f"artifacts={tmp_path / 'artifacts'}", "loadtest.arrivals=replay", f"loadtest.replay={tmp_path / 'times'}"]

    refused = subprocess.run(
        [*_alone(tmp_path), *words], env=_environment(tmp_path), capture_output=True, text=True, check=False, timeout=60
    )

    assert (2, "") == (refused.returncode, refused.stdout)
    assert "line 3 is b'$(reboot)'" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loadtest.arrivals=replay"], "go together"),
        (["loadtest.replay=README.md"], "go together"),
        (["loadtest.arrivals=replay", "loadtest.replay=gone.txt"], "no such file"),
        (["loadtest.users=5", "loadtest.shape=step"], "loadtest.shape and loadtest.replay cannot be followed"),
        (["loadtest.processes=2", "loadtest.expect_workers=2"], "take the place of loadtest.processes"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read_config(["model=digits_cnn", *words])


def test_the_web_page_is_served_on_loopback_until_interrupted(serve: Serve, payload: Path, tmp_path: Path) -> None:
    _write_state(serve().url, payload, tmp_path)
    words = [f"artifacts={tmp_path / 'artifacts'}", "web=true"]
    with subprocess.Popen(
        [*_alone(tmp_path), *words], env=_environment(tmp_path), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[4]
        page = _page(address)
        process.send_signal(2)

        assert 0 == process.wait(20)
    assert "<html" in page
    assert address.startswith("http://127.0.0.1:")


def _page(address: str) -> str:
    for _ in range(100):
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - an address of ours
                return str(answer.read().decode())
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{address} does not answer")


def _alone(folder: Path) -> list[str]:
    return [sys.executable, "-c", ALONE, str(folder / "lock"), "model=digits_cnn"]


def _write_state(url: str, payload: Path, home: Path, **told: int) -> None:
    token_file = payload.with_name("token.json")
    token_file.write_text('{"token": "a-token"}')
    token = {"token": "a-token", "token_file": str(token_file)}
    state = {"predictions_url": url, **token, "pid": os.getpid(), "payloads": [str(payload)], "slo_ms": 100.0} | told
    subprocess.run([sys.executable, "-c", STATE, json.dumps(state)], env=_environment(home), check=True, timeout=60)


def _environment(home: Path) -> dict[str, str]:
    assert project_root().is_dir()
    return {**os.environ, "XDG_STATE_HOME": str(home), "PYTHONUNBUFFERED": "1"}
