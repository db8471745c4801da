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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from marline.core import DeployConfig, MarlineError, Section, ServerError, file_sha256, read_config, seal
from marline.deploy import Server, serving
from marline.handler import Pair, write_golden
from marline.tune._trial import Bench, load_of, run_trial

Until = Callable[..., float]
Make = Callable[..., Path]
MODEL = "digits_cnn"  # a name that has a configuration; what answers to it here is the obedient handler


def tuned(artifacts: Path, archive: Path, order: dict[str, Any]) -> None:
    """A finished run whose archive `nox -s serve` takes, with the proof of its answer to one order."""
    run = artifacts / MODEL / "20260101-000000-0001"
    (run / "export").mkdir(parents=True)
    pair = Pair("order.json", json.dumps(order).encode(), {"output": {"n": order["n"]}})
    write_golden(run / "export" / "golden.json", [pair])
    close = {"atol": 1e-4, "rtol": 1e-3}
    seal(run / "export", model=MODEL, config=Section(), inputs=[], facts=close, started=time.monotonic())
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


@dataclass(frozen=True)
class Serving:
    """A running `nox -s serve`; `home` has all that it leaves anywhere but in its logs."""

    process: subprocess.Popen[bytes]
    home: Path

    @property
    def said(self) -> str:
        return (self.home / "said.txt").read_text()

    @property
    def folder(self) -> Path:
        (found,) = self.home.glob("t/marline-*/*")
        return found


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Serving]]:
    """Start `python -m marline.deploy.serve` in a place of its own; it is over after the test."""
    started: list[Serving] = []

    def start(archive: Path, *words: str) -> Serving:
        home = tmp_path_factory.mktemp("s")
        (home / "t").mkdir()
        tuned(home / "artifacts", archive, {"n": 7})
        environment = {**os.environ, "TMPDIR": str(home / "t"), "XDG_STATE_HOME": str(home / "t"), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "marline.deploy.serve", f"model={MODEL}", f"artifacts={home / 'artifacts'}", *words]
        with (home / "said.txt").open("wb") as said:
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, start_new_session=True)
        started.append(Serving(process, home))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.terminate()
        one.process.wait(20)


@pytest.fixture
def served(request: pytest.FixtureRequest, serve: Callable[..., Serving], make: Make, until: Until) -> Serving:
    """One that serves; a parameter is of its model-config.yaml."""
    one = serve(make("served", **getattr(request, "param", {})))
    until(lambda: "curl" in one.said or one.process.poll() is not None, 60, "it serves")
    return one


@pytest.fixture
def own_server(config: DeployConfig, make: Make, tmp_path: Path) -> Iterator[Server]:
    """A server that may be killed, with a model."""
    with serving(config, tmp_path / "logs") as server:
        server.load(make("killed"), "killed", batch_size=1, max_batch_delay_ms=10, workers=1)
        yield server


@pytest.mark.faults("F03", "SIGKILL of Java under load", "seen in 3 s, no orphan, no trial of it, a clean restart", seconds=40)
def test_f03_a_killed_java_is_noticed_leaves_nothing_and_its_trial_does_not_count(
    own_server: Server, config: DeployConfig, make: Make, until: Until, tmp_path: Path
) -> None:
    server, order = own_server, tmp_path / "order.json"
    order.write_text(json.dumps({"n": 1, "sleep_s": 0.05}))
    told = read_config(["model=digits_cnn", "tune.trial_s=4", "loadtest.warmup_s=0"]).config
    bench = Bench(server, "killed", [order], told.tune, told.loadtest, 500.0, tmp_path, tmp_path / "load")
    java = psutil.Process(int((server.folder / "java.pid").read_text()))
    below = java.children(recursive=True)
    with ThreadPoolExecutor(1) as tuning:
        trial = tuning.submit(run_trial, bench, load_of(bench, 5.0, "search", 1), 1, "a run")
        until(lambda: any(file.stat().st_size > 200 for file in server.batches.glob("*.csv")), 15, "load")

        java.kill()

        until(lambda: server.guard.poll() is not None, 3, "the guard has noticed")
        until(lambda: not any(map(running, below)), 2, f"the workers {below} are gone")
        assert not server.folder.exists()
        with pytest.raises(ServerError, match="gave no answer"):
            trial.result(30)
    assert not (tmp_path / "samples").exists()  # nothing of it can be averaged in
    with serving(config, tmp_path / "again") as again:
        again.load(make("killed"), "killed", batch_size=1, max_batch_delay_ms=10, workers=1)
        assert 200 == again.client.predict("killed", order.read_bytes(), "application/json").status


@pytest.mark.faults("F04", "SIGTERM to a serving server", "exit code 0; in 20 s no process, port or file of it", seconds=30)
def test_f04_a_server_that_is_told_to_stop_is_gone_within_its_time(served: Serving) -> None:
    one = served
    below = psutil.Process(one.process.pid).children(recursive=True)
    ports = {found.laddr.port for each in below for found in each.net_connections("tcp") if found.status == psutil.CONN_LISTEN}
    assert len(below) >= 3  # the guard, Java, a worker
    assert len(ports) >= 3
    assert (one.folder / "key_file.json").exists()

    one.process.send_signal(signal.SIGTERM)

    assert 0 == one.process.wait(20), one.said
    assert not any(map(running, below))
    assert not any(map(taken, ports))
    assert [] == [file for file in (one.home / "t").rglob("*") if not file.is_dir()]


@pytest.mark.faults(
    "F10", "a worker killed that cannot be loaded again", "DOWN after maxRetryTimeoutInSec 5; nothing waits", seconds=40
)
@pytest.mark.parametrize("served", [{"maxRetryTimeoutInSec": 5}], ids=["5 s"], indirect=True)
def test_f10_a_model_that_torchserve_has_given_up_is_called_down(served: Serving, until: Until) -> None:
    one = served
    state = json.loads(next((one.home / "t").rglob("digits_cnn.json")).read_text())
    (order,) = one.folder.glob("temp/models/*/order.json")
    order.unlink()
    java = psutil.Process(int((one.folder / "java.pid").read_text()))
    (worker,) = [child for child in java.children() if "model_service_worker" in " ".join(child.cmdline())]

    worker.kill()

    until(lambda: "DOWN" in one.said, 25, "it is called DOWN")
    began = time.monotonic()
    with pytest.raises(httpx2.HTTPError):
        httpx2.post(state["predictions_url"], json={"n": 1}, timeout=2)
    assert time.monotonic() - began < 3


@contextmanager
def all_but_the_last_free(count: int) -> Iterator[list[int]]:
    """Ports, of which only the last is taken, by this process."""
    with socket.create_server(("127.0.0.1", 0)) as holder, ExitStack() as others:
        free = [others.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count - 1)]
        ports = [one.getsockname()[1] for one in (*free, holder)]
        others.close()
        yield ports


@pytest.mark.faults("F16", "a port that was asked for is taken", "refused in 2 s, with the port and its owner", seconds=5)
@pytest.mark.parametrize("count", [1, 3, 4], ids=["inference", "metrics", "grpc"])
def test_f16_a_taken_port_is_named_with_its_owner_before_anything_starts(count: int, tmp_path: Path) -> None:
    with all_but_the_last_free(count) as ports:
        config = read_config(["model=digits_cnn", f"deploy.ports={ports}"]).config.deploy
        began = time.monotonic()
        with pytest.raises(MarlineError, match=f"port {ports[-1]} is taken by .*{os.getpid()}"), serving(config, tmp_path):
            pass
        seconds = time.monotonic() - began

    assert seconds < 2


@pytest.mark.faults("F16", "a port is taken before nox -s serve", "told, exit code not 0, nothing left running", seconds=10)
def test_f16_a_command_whose_port_is_taken_ends_with_what_it_is(serve: Callable[..., Serving], make: Make) -> None:
    """Most of its seconds are those in which Python imports torch, before it has read what was asked."""
    archive = make("unstarted")
    with all_but_the_last_free(1) as ports:
        one = serve(archive, f"deploy.ports={ports}")

        assert 2 == one.process.wait(10)

    assert f"port {ports[-1]} is taken by" in one.said
    assert "Traceback" not in one.said
    assert [] == list((one.home / "t").glob("marline-*/*"))


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
