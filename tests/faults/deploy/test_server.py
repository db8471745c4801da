"""A server that is killed, stopped, or cannot start."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from marline.core import DeployConfig, Section, ServerError, file_sha256, read_config, seal
from marline.deploy import serving
from marline.tune._trial import Bench, Setting, run_trial

Until = Callable[..., float]
Make = Callable[..., Path]
MODEL = "digits_cnn"  # a name that has a configuration; what answers to it here is the obedient handler


def tuned(artifacts: Path, archive: Path, order: dict[str, Any]) -> None:
    """A finished run whose archive `nox -s serve` takes."""
    run = artifacts / MODEL / "20260101-000000-0001"
    (run / "load" / "sample").mkdir(parents=True)
    (run / "load" / "sample" / "order.json").write_text(json.dumps(order))
    out = run / "tune"
    out.mkdir()
    os.link(archive, out / archive.name)
    facts = {
        "profile": "standard",
        "accelerator": {"kind": "cpu"},
        "slo": {"ms": 100},
        "tuned": {"archive": archive.name, "sha256": file_sha256(archive)},
        "chosen": {"batch_size": 1, "max_batch_delay_ms": 10, "workers": 1},
    }
    seal(out, model=MODEL, config=Section(), inputs=[], facts=facts, started=time.monotonic())


@pytest.fixture
def served(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `python -m marline.deploy.serve` in a place of its own; it is over after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(archive: Path, *words: str) -> subprocess.Popen[str]:
        artifacts, home = tmp_path_factory.mktemp("artifacts"), tmp_path_factory.mktemp("h")
        tuned(artifacts, archive, {"n": 7})
        environment = {**os.environ, "TMPDIR": str(home), "XDG_STATE_HOME": str(home / "state"), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "marline.deploy.serve", f"model={MODEL}", f"artifacts={artifacts}", *words]
        started.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        with process:
            process.kill()


@pytest.mark.faults("F03", "SIGKILL of Java under load", "seen in 3 s, no orphan, no trial of it, a clean restart", seconds=40)
def test_f03_a_killed_java_is_noticed_leaves_nothing_and_its_trial_does_not_count(
    config: DeployConfig, make: Make, until: Until, tmp_path: Path
) -> None:
    archive, order = make("killed"), tmp_path / "order.json"
    order.write_text(json.dumps({"n": 1, "sleep_s": 0.05}))
    told = read_config(["model=digits_cnn", "tune.trial_s=6", "loadtest.warmup_s=0"]).config
    with serving(config, tmp_path / "logs") as server, ThreadPoolExecutor(1) as tuning:
        server.load(archive, "killed", batch_size=1, max_batch_delay_ms=10, workers=1)
        bench = Bench(server, "killed", [order], told.tune, told.loadtest, 500.0, tmp_path, tmp_path / "load")
        java = psutil.Process(int((server.folder / "java.pid").read_text()))
        below = java.children(recursive=True)
        trial = tuning.submit(run_trial, bench, Setting(1, 10, 1), 5.0, 1, "search")
        until(lambda: any(file.stat().st_size > 200 for file in server.batches.glob("*.csv")), 15, "load")

        java.kill()

        until(lambda: server.guard.poll() is not None, 3, "the guard has noticed")
        until(lambda: not any(map(running, below)), 2, f"the workers {below} are gone")
        assert not server.folder.exists()
        with pytest.raises(ServerError, match="gave no answer"):
            trial.result(30)
    assert not (tmp_path / "samples").exists()  # nothing of it can be averaged in
    with serving(config, tmp_path / "again") as server:
        server.load(archive, "killed", batch_size=1, max_batch_delay_ms=10, workers=1)
        assert 200 == server.client.predict("killed", order.read_bytes(), "application/json").status


@pytest.mark.faults("F04", "SIGTERM to a serving server", "exit code 0; in 20 s no process, port or file of it", seconds=30)
def test_f04_a_server_that_is_told_to_stop_is_gone_within_its_time(
    served: Callable[..., Any], make: Make, until: Until
) -> None:
    process = served(make("stops"))
    assert any("curl" in line for line in iter(process.stdout.readline, ""))
    below = psutil.Process(process.pid).children(recursive=True)
    ports = {found.laddr.port for one in below for found in one.net_connections("tcp") if found.status == psutil.CONN_LISTEN}
    home = Path(psutil.Process(process.pid).environ()["TMPDIR"])
    (folder,) = home.glob("marline-*/*")
    assert (len(below) >= 3, len(ports) >= 3, (folder / "key_file.json").exists()) == (True, True, True)

    process.send_signal(signal.SIGTERM)

    assert 0 == process.wait(20)
    assert not any(map(running, below))
    assert not any(map(taken, ports))
    assert [] == [file for file in home.rglob("*") if file.is_file() or file.is_socket()]


@pytest.mark.faults("F16", "a port that was asked for is taken", "named with its owner, exit code not 0 in 2 s", seconds=5)
@pytest.mark.parametrize("which", [0, 2, 3])
def test_f16_a_taken_port_is_named_with_its_owner(which: int, served: Callable[..., Any], make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        free = [socket.create_server(("127.0.0.1", 0)) for _ in range(which)]
        ports = [*(one.getsockname()[1] for one in free), holder.getsockname()[1]]
        for one in free:
            one.close()
        archive = make("unstarted")
        began = time.monotonic()
        process = served(archive, f"deploy.ports={ports}".replace(" ", ""))
        code, said = process.wait(5), process.stderr.read()
        seconds = time.monotonic() - began

    assert code in {1, 2}
    assert f"port {ports[-1]} is taken by" in said
    assert str(os.getpid()) in said
    assert seconds < 2
    assert [] == psutil.Process().children(recursive=False) or not psutil.pid_exists(process.pid)


def running(process: psutil.Process) -> bool:
    """Whether it has not ended; one that nobody has waited for yet has."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def taken(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as asker:
        return asker.connect_ex(("127.0.0.1", port)) == 0
