"""A Prefect server on PostgreSQL, the deployment of `pipelines/prefect.yaml`, and workers that take its runs: all real."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
READY_S = 120.0
POOL = "marline"
SETPRIV = shutil.which("setpriv") or "setpriv"  # the folder it is in may hold Java, which tests hide
WITH_US = (SETPRIV, "--pdeathsig", "KILL")  # a test that is killed leaves nothing; a worker's own watcher ends its run then
DEPLOYMENT = "capacity/process"
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class Pool:
    """A server of Prefect's with the pool and the deployment; `said` is what the server's command printed."""

    api: str
    home: Path
    environment: Mapping[str, str]

    @property
    def said(self) -> str:
        return (self.home / "server.log").read_text()

    def ask(self, path: str, content: Any = None) -> Any:
        """GET, or POST of JSON."""
        data = None if content is None else json.dumps(content).encode()
        asked = urllib.request.Request(f"{self.api}{path}", data, {"Content-Type": "application/json"})  # noqa: S310 - loopback
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310 - as above
            return json.load(answer)

    def prefect(self, *words: str) -> str:
        """Run a command of Prefect's as a user would, from the repository's root."""
        command = [sys.executable, "-m", "prefect", *words]
        told = {**self.environment, "PREFECT_API_URL": self.api}
        done = subprocess.run(command, cwd=ROOT, env=told, capture_output=True, text=True, check=False, timeout=READY_S)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def deploy(self, parameters: Mapping[str, Any], *words: str) -> None:
        told = ["--prefect-file", "pipelines/prefect.yaml", "--name", "process", "--params", json.dumps(parameters)]
        self.prefect("--no-prompt", "deploy", *told, *words)

    def start(self, **parameters: Any) -> str:
        """Ask for a run now; returns its id."""
        found = self.ask(f"/deployments/name/{DEPLOYMENT}")
        run: str = self.ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"]
        return run

    def state(self, run: str) -> str:
        told: str = self.ask(f"/flow_runs/{run}")["state_type"]
        return told

    def runs(self) -> list[dict[str, Any]]:
        """Every run, the newest last."""
        found: list[dict[str, Any]] = self.ask("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"})
        return found

    def artifacts(self, run: str) -> dict[str, dict[str, Any]]:
        """What Prefect's page shows of a run, by key."""
        asked = {"artifacts": {"flow_run_id": {"any_": [run]}}}
        return {found["key"]: found for found in self.ask("/artifacts/filter", asked) if found["key"]}

    @contextmanager
    def worker(self, artifacts: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        """A worker for the runs of the pool; what it prints goes to `worker.log`."""
        command = [*WITH_US, sys.executable, "-m", "pipelines.worker", f"pool={POOL}", f"artifacts={artifacts}"]
        told = {**environment, "PREFECT_API_URL": self.api, "PREFECT_WORKER_QUERY_SECONDS": "2"}
        with (self.home / "worker.log").open("ab") as log:
            started = subprocess.Popen(
                command, cwd=ROOT, env=told, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        with started:
            try:
                yield started
            finally:
                started.terminate()
                try:
                    started.wait(30)
                except subprocess.TimeoutExpired:
                    started.kill()


@contextmanager
def pool(database: str, home: Path) -> Iterator[Pool]:
    """Start `nox -s prefect`'s program on the database and make the pool."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PYTHONUNBUFFERED": "1"}
    told.pop("PREFECT_API_URL", None)
    command = [*WITH_US, sys.executable, "-m", "pipelines.server", f"port={port}"]
    own = {**told, "PREFECT_API_DATABASE_CONNECTION_URL": database}
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    with server:
        try:
            made = Pool(f"http://127.0.0.1:{port}/api", home, told)
            within(READY_S, lambda: _healthy(made), "Prefect's server answers")
            made.prefect("work-pool", "create", POOL, "--type", "process")
            yield made
        finally:
            server.terminate()


def within(seconds: float, true: Callable[[], object], what: str) -> float:
    """Wait until something is so; returns how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)
    return time.monotonic() - began


def _healthy(made: Pool) -> bool:
    try:
        return made.ask("/health") is True
    except OSError:
        return False


def settings(words: Sequence[str], artifacts: Path) -> list[str]:
    """The words of a command line as the deployment's free settings."""
    return [*(word for word in words if not word.startswith("profile=")), f"artifacts={artifacts}"]
