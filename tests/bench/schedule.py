"""Benchmark `schedule`: runs by cron on a real Prefect server with PostgreSQL, and what becomes of runs that are killed.

A process worker takes runs of `digits_cnn profile=smoke` that a schedule of every minute starts. Then its worker is killed in
mid-run, then everything of a run at once, as if its machine were gone. About ten minutes on two cores; it needs PostgreSQL's
programs. One part alone: `python -m tests.bench.schedule scheduled` (or killed, silent, declared).
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from marline.core import StageError, read_manifest
from packages.handler.bench.parts.figure import failed, figure
from tests.pool import ENDED, ROOT, Pool, pool, settings, within
from tests.postgres import postgres, programs

RUNS = 3
RUN_S = 300.0
GONE_S = 10.0
SILENT_S = 180.0  # a heartbeat of 30 s, 90 s of silence, and the server's own pace
DEPLOYMENTS = ("process", "docker", "kubernetes")
KEYS = {f"digits-cnn-{name}" for name in ("progress", "summary", "report", "picture")}
Figures = list[dict[str, Any]]


@dataclass(frozen=True)
class Bench:
    """A server with the deployment, and the folders of one machine."""

    server: Pool
    artifacts: Path
    temp: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self.temp), "XDG_STATE_HOME": str(self.temp / "state"), "PYTHONUNBUFFERED": "1"}

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        with self.server.worker(self.artifacts, self.environment) as started:
            yield started

    def start(self, slo_ms: float) -> str:
        """A run for an objective of its part's: not afresh, so that the next one with it goes on where it was cut off."""
        return self.server.start(settings=settings([], self.artifacts), slo_ms=slo_ms, fresh=None)

    def ours(self) -> list[psutil.Process]:
        """The worker, its run, and all that these have started: by the temporary folder in their environment."""
        return [process for process in psutil.process_iter() if _is_in(process, str(self.temp))]

    def await_trial(self, number: int, run: str) -> None:
        """Wait until `run` begins its trial `number`."""
        within(RUN_S, lambda: self.server.state(run) == "RUNNING", "the run begins")
        before = len(self.trials(number))
        within(RUN_S, lambda: len(self.trials(number)) > before, f"trial {number} begins")

    def trials(self, number: int) -> list[Path]:
        return list(self.artifacts.glob(f"digits_cnn/*/logs/tune/trial-{number:03d}/plan.json"))


def figures(only: str | None = None) -> Figures:
    """Every part's figures, or one part's; a part that fails says so in its place."""
    if programs() is None:
        raise StageError("there is no PostgreSQL here; apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="marline-s-") as folder, postgres() as (database, _):
        place = Path(folder)
        for name in ("prefect", "tmp", "artifacts"):
            (place / name).mkdir()
        with pool(database, place / "prefect") as server:
            bench = Bench(server, place / "artifacts", place / "tmp")
            return [row for part in PARTS if only in {None, part.__name__} for row in _rows(part, bench)]


def declared(bench: Bench) -> Figures:
    """Every deployment of the file, in pools made as docs/scale.md says; no Docker and no cluster is asked."""
    server, template = bench.server, str(ROOT / "pipelines" / "kubernetes.json")
    server.prefect("work-pool", "create", "marline-docker", "--type", "docker")
    server.prefect("work-pool", "create", "marline-kubernetes", "--type", "kubernetes", "--base-job-template", template)
    told = ["--prefect-file", "pipelines/prefect.yaml", "--param", "model=resnet50"]
    for name in DEPLOYMENTS:
        server.prefect("--no-prompt", "deploy", "--name", name, *told)
    found = [server.ask(f"/deployments/name/capacity/{name}") for name in DEPLOYMENTS]
    taken = sum(one["parameters"]["model"] == "resnet50" and len(one["schedules"]) == 1 for one in found)
    pools = ", ".join(one["work_pool_name"] for one in found)
    return [figure("deployments that Prefect took", taken, "deployments", 3, taken == 3, 3, pools)]


def scheduled(bench: Bench) -> Figures:
    """Three runs of a schedule of every minute."""
    told = {"model": "digits_cnn", "profile": "smoke", "fresh": "tune", "settings": settings([], bench.artifacts)}
    bench.server.deploy(told, "--cron", "* * * * *")
    began = time.monotonic()
    with bench.worker():
        within(RUNS * RUN_S, lambda: len(_ended(bench)) >= RUNS, f"{RUNS} scheduled runs end")
        took = time.monotonic() - began
        bench.server.prefect("work-pool", "pause", "marline")
        within(RUN_S, lambda: not _going(bench), "the run after them ends")
    runs = _ended(bench)[:RUNS]
    done = sum(run["state_type"] == "COMPLETED" and run["auto_scheduled"] for run in runs)
    shown = sum(KEYS == bench.server.artifacts(run["id"]).keys() for run in runs)
    reports = sorted(bench.artifacts.glob("digits_cnn/2*/report"))[:RUNS]
    afresh = sum(read_manifest(report.parent / "tune").run == report.parent.name for report in reports)
    return [
        figure("scheduled runs that completed", done, "runs", RUNS, done == RUNS, RUNS, f"within {took:.0f} s of the schedule"),
        figure(
            "of them with all artifacts on Prefect's page", shown, "runs", RUNS, shown == RUNS, RUNS, ", ".join(sorted(KEYS))
        ),
        figure("of them measured afresh", afresh, "runs", RUNS, afresh == RUNS, RUNS, "tune is in their own folder"),
    ]


def killed(bench: Bench) -> Figures:
    """The worker, by SIGKILL, in a trial; then the next run."""
    _unscheduled(bench)
    run = bench.start(402.0)
    with bench.worker() as worker:
        bench.await_trial(3, run)
        worker.send_signal(signal.SIGKILL)
        gone = within(60, lambda: not bench.ours(), "nothing is left of the run")
        marked = gone + within(SILENT_S, lambda: bench.server.state(run) == "CRASHED", "the run is marked")
    next_one = bench.start(402.0)
    with bench.worker():
        within(RUN_S, lambda: bench.server.state(next_one) in ENDED, "the next run ends")
    done = bench.server.state(next_one) == "COMPLETED"
    newest = max(bench.artifacts.glob("digits_cnn/2*/tune/result.json"), key=lambda file: file.stat().st_mtime)
    taken = sum(trial["run"] is not None for trial in json.loads(newest.read_text())["trials"])
    tasks = bench.server.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [next_one]}}})
    cached = sum(task["state_name"] == "Cached" for task in tasks)
    return [
        figure("until nothing was left of a killed worker's run", gone, "s", GONE_S, gone <= GONE_S, 1, "in its third trial"),
        figure("until that run was marked Crashed", marked, "s", GONE_S, marked <= GONE_S, 1, "by itself, as it ended"),
        figure("stages that the next run took over", cached, "stages", 5, done and cached == 5, 1, "load to deploy"),
        figure("trials that the next run took over", taken, "trials", 2, done and taken >= 2, 1, bench.server.state(next_one)),
    ]


def silent(bench: Bench) -> Figures:
    """Everything of a run at once: nobody is left who could say so."""
    _unscheduled(bench)
    run = bench.start(403.0)
    with bench.worker():
        bench.await_trial(1, run)
        for process in bench.ours():
            process.kill()
        marked = within(SILENT_S, lambda: bench.server.state(run) == "CRASHED", "the silent run is marked")
    return [figure("until a run that fell silent was marked", marked, "s", SILENT_S, marked <= SILENT_S, 1, "by an automation")]


PARTS = (scheduled, killed, silent, declared)


def _unscheduled(bench: Bench) -> None:
    """The deployment with the schedule that its file declares, nightly; minutes that came in the pause are dropped."""
    told = {"model": "digits_cnn", "profile": "smoke", "fresh": "tune", "settings": settings([], bench.artifacts)}
    bench.server.deploy(told)
    due = datetime.now(UTC)
    for run in bench.server.runs():
        if run["state_type"] == "SCHEDULED" and datetime.fromisoformat(run["expected_start_time"]) < due:
            bench.server.prefect("flow-run", "delete", run["id"])
    bench.server.prefect("work-pool", "resume", "marline")


def _ended(bench: Bench) -> list[dict[str, Any]]:
    return [run for run in bench.server.runs() if run["state_type"] in ENDED]


def _going(bench: Bench) -> list[dict[str, Any]]:
    return [run for run in bench.server.runs() if run["state_type"] in ("RUNNING", "PENDING")]


def _is_in(process: psutil.Process, folder: str) -> bool:
    try:
        return any(folder in word for word in (*process.cmdline(), *process.environ().values()))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _rows(part: Any, bench: Bench) -> Figures:
    print(f"{part.__name__}: {part.__doc__}", flush=True)
    try:
        rows: Figures = part(bench)
    except Exception as error:  # whatever a server, a worker or a run did
        rows = [failed(part.__name__, None, f"{type(error).__name__}: {str(error)[:600]}")]
    return rows


if __name__ == "__main__":
    print(json.dumps(figures(sys.argv[1]), indent=1))
