"""Runs of the real pipeline on real TorchServe, in a folder of their own, with a temporary folder of their own.

Test modules cannot import each other, so what they share is here and reaches them as fixtures.
"""

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from marline.core import Manifest, read_manifest
from pipelines.server import make_tables

ROOT = Path(__file__).parents[2]
MODEL = "digits_cnn"
QUICK = (  # for runs whose numbers are not the point: short trials
    *("profile=smoke", "tune.trial_s=1", "tune.confirm_s=2", "tune.curve_repeats=3", "tune.steps=1", "loadtest.warmup_s=0.5"),
    *("export.batch_sizes=[1,2,3]", "export.fuse=false", "export.channels_last=false"),
)
SMOKE = (*QUICK, "report.price_per_hour=0.5")
CHEAP = (*QUICK, "tune.batch_sizes=[2]", "tune.max_batch_delays_ms=[2]", "tune.percentile=90")  # which few requests decide
# A quick accelerator and a wide objective: at a low rate trials would be stretched, and confirmed down step by step.
EMULATED = (*CHEAP, "profile=standard", "accelerator=rn50_a100_ort_trt_fp16", "tune.slo_ms=403")
GONE_S = 10.0
WITHOUT_ARTIFACTS = ("pipelines.new_model", "pipelines.server")


@dataclass(frozen=True)
class Ran:
    """A finished program."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def run(self) -> Path:
        """The run folder that the pipeline named."""
        return Path(re.findall(r"^  run +(\S.*)$", self.out, re.MULTILINE)[0])

    @property
    def cached(self) -> list[str]:
        """The stages that were taken from an earlier run."""
        return re.findall(r"^  (\w+) +cached", self.out, re.MULTILINE)


@dataclass(frozen=True)
class Place:
    """Where the programs under test work: the project, their artifacts and their temporary folder."""

    root: Path
    artifacts: Path
    temp: Path
    prefect: str | None = None  # the address of a server that many runs share; without, each starts its own

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with every folder a program of the project writes to moved here, and no Java to be found."""
        paths = [path for path in os.environ["PATH"].split(":") if not Path(path, "java").exists()]
        state = str(self.temp / "state")
        return {
            **os.environ,
            "PATH": ":".join(paths),
            "TMPDIR": str(self.temp),
            "XDG_STATE_HOME": state,
            "PYTHONUNBUFFERED": "1",
            **({"PREFECT_API_URL": self.prefect} if self.prefect else {}),
        }

    @property
    def servers(self) -> list[Path]:
        """The folders of running servers."""
        return sorted(self.temp.glob(f"marline-{os.getuid()}/*"))

    def command(self, module: str, *words: str) -> list[str]:
        where = [] if module in WITHOUT_ARTIFACTS else [f"artifacts={self.artifacts}"]
        return [sys.executable, "-m", module, *words, *where]

    def run(self, module: str, *words: str, timeout_s: float = 400) -> Ran:
        """Run `python -m module words`, in its own session, to its end."""
        began = time.monotonic()
        with self.start(module, *words) as process:
            try:
                out, err = process.communicate(timeout=timeout_s)
            finally:
                end(process)
        return Ran(process.returncode, out, err, time.monotonic() - began)

    def start(self, module: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(module, *words),
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ours(self) -> list[psutil.Process]:
        """Every process that has our temporary folder in its environment or command line, this one aside."""
        return [process for process in psutil.process_iter() if process.pid != os.getpid() and _names(process, self.temp)]


def _names(process: psutil.Process, folder: Path) -> bool:
    try:
        told = [*process.cmdline(), *process.environ().values()]
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
    return any(str(folder) in word for word in told)


def end(process: subprocess.Popen[str]) -> None:
    """Make sure that a program is over."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                continue


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    temp = Path(tempfile.mkdtemp(prefix="marline-e2e-"))  # short: workers' sockets are in it
    yield Place(ROOT, temp / "artifacts", temp)
    shutil.rmtree(temp)


SHARED: list[subprocess.Popen[bytes]] = []


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Ends the shared server after the last test here: it takes 1.3 % of a core also while nobody asks it."""
    if nextitem is None or not nextitem.path.is_relative_to(item.path.parent):
        for server in SHARED:
            server.terminate()


@pytest.fixture(scope="session")
def sharing(place: Place, until: Callable[..., float], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The same place with one Prefect server for all its runs, for tests that are not about a run's beginning or end."""
    home, free = tmp_path_factory.mktemp("prefect"), socket.create_server(("127.0.0.1", 0))
    make_tables(home)
    port = free.getsockname()[1]
    free.close()
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    # Without its schedules and records of events, which nobody here looks at.
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-services", "--host", "127.0.0.1", "--port", str(port)]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    SHARED.append(server)

    def answers() -> bool:
        with socket.socket() as asker:
            return asker.connect_ex(("127.0.0.1", port)) == 0

    with server:
        try:
            until(answers, 60, "Prefect's server answers")
            yield replace(place, prefect=f"http://127.0.0.1:{port}/api")
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def smoke(place: Place, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Ran:
    """The one whole run over the whole grid; where several processes test, all but the first have a copy of what it left."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    told, kept, results = shared / "smoke.json", shared / "smoke", Path(".prefect", "storage")
    with (shared / "smoke.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # place.run has the deadline
        if not told.exists():
            ran = place.run("pipelines", f"model={MODEL}", *SMOKE)
            if ran.code == 0:
                shutil.copytree(ran.run, kept)
                shutil.copytree(place.artifacts / results, shared / results)
            told.write_text(json.dumps(asdict(ran)))
            return ran
    ran = Ran(**json.loads(told.read_text()))
    if ran.code == 0:
        copy = place.artifacts / MODEL / ran.run.name
        shutil.copytree(kept, copy)
        copy.with_name("latest").symlink_to(copy.name)
        there, here = str(ran.run.parents[1]), str(place.artifacts)
        (place.artifacts / results).mkdir(parents=True)
        for result in (shared / results).iterdir():
            (place.artifacts / results / result.name).write_text(result.read_text().replace(there, here))
        ran = replace(ran, out=ran.out.replace(there, here))
    return ran


@dataclass(frozen=True)
class Killed:
    """A pipeline that was killed as its third trial began, and what was left of it when nothing should be."""

    run: str
    processes: list[psutil.Process]
    servers: list[Path]


@pytest.fixture(scope="session")
def killed(place: Place, smoke: Ran, until: Callable[..., float]) -> Killed:
    """The emulated one of `pair`, begun once before."""
    assert 0 == smoke.code, smoke.err
    runs, before = place.artifacts / MODEL, set((place.artifacts / MODEL).glob("*-*-*"))

    def begun() -> bool:
        return any(next(run.glob("logs/tune/trial-003/plan.json"), None) for run in set(runs.glob("*-*-*")) - before)

    with place.start("pipelines", f"model={MODEL}", *EMULATED) as pipeline:
        try:
            until(begun, 120, "the third trial began")
            pipeline.kill()
        finally:
            end(pipeline)
    with suppress(AssertionError):  # the test says which are left
        until(lambda: not place.ours(), GONE_S, "no process of ours")
    (run,) = set(runs.glob("*-*-*")) - before
    return Killed(run.name, place.ours(), place.servers)


@pytest.fixture(scope="session")
def pair(sharing: Place, killed: Killed) -> dict[str, Ran]:
    """Two pipelines started at the same moment, the one emulated, which goes on from where it was killed, the other not."""
    told = {"emulated": [f"model={MODEL}", *EMULATED], "real": ["model=digits_sklearn", *CHEAP, "tune.slo_ms=401"]}
    began = time.monotonic()
    running = {name: sharing.start("pipelines", *words) for name, words in told.items()}
    ended = {}
    for name, process in running.items():
        try:
            out, err = process.communicate(timeout=300)
        finally:
            end(process)
        ended[name] = Ran(process.returncode, out, err, time.monotonic() - began)
    return ended


@pytest.fixture(scope="session")
def quick() -> tuple[str, ...]:
    """The words of the smoke run."""
    return SMOKE


@pytest.fixture(scope="session")
def stage(smoke: Ran) -> Callable[[str], Manifest]:
    """A finished stage of the smoke run."""
    assert 0 == smoke.code, smoke.err
    return lambda name: read_manifest(smoke.run / name)


@pytest.fixture
def program(place: Place) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `python -m module words`; it is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(module: str, *words: str) -> subprocess.Popen[str]:
        started.append(place.start(module, *words))
        return started[-1]

    yield start
    for process in started:
        with process:
            end(process)


@pytest.fixture(scope="session")
def scheduled(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Place]]:
    """A schedule of one minute of the day, the next but one: other tests run until it has come."""
    own = Place(place.root, tmp_path_factory.mktemp("artifacts"), place.temp)
    soon = datetime.now(UTC) + timedelta(seconds=130)  # at least 70 s from now: it must be up by then
    words = ["model=digits_cnn", "profile=smoke", "until=load", f"cron={soon.minute} {soon.hour} * * *"]
    process = own.start("pipelines.schedule", *words)
    with process:
        yield process, own
        process.kill()
