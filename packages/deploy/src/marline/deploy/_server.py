"""A TorchServe of our own as a context: started, ready to take models, and gone without a trace at its end."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from marline.core import Accelerator, DeployConfig, NotReady, ServerError, WorkerError, write_json
from marline.deploy._client import Client, Status, Tokens, read_tokens
from marline.deploy._folders import new_folder, own, sweep
from marline.deploy._logs import Mark, mark, since
from marline.deploy._preflight import check_archive, preflight
from marline.deploy._settings import Ports, asked_at, command, environment, free_ports, java_home_of, log4j, metrics, properties

POLL_S = 0.1
STARTS = 3  # a port may be taken between our look and Java's
STOP_S = 20.0
TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True, slots=True)
class Server:
    """A running TorchServe; `batches` is where our handler logs each batch; `installs` says it installs requirements."""

    client: Client
    folder: Path
    logs: Path
    ready_s: float
    guard: subprocess.Popen[bytes]
    installs: bool = False

    @property
    def batches(self) -> Path:
        """One CSV per worker: monotonic end time in s, size, and preprocess, inference and postprocess in ms."""
        return self.folder / "batches"

    def load(self, archive: Path, model: str, *, batch_size: int, max_batch_delay_ms: int, workers: int) -> Status:
        """Register an archive and wait until all its workers are READY; the values read back are those sent.

        Raises WorkerError with the worker's traceback as soon as there is one, NotReady at the deadline.
        """
        check_archive(archive, self.folder)
        stored = self.folder / "store" / archive.name
        stored.unlink(missing_ok=True)
        try:
            os.link(archive.resolve(), stored)
        except OSError:  # another file system
            stored.write_bytes(archive.read_bytes())
        seen = self._worker_log_mark()
        told = {"batch_size": batch_size, "max_batch_delay_ms": max_batch_delay_ms, "workers": workers}
        if self.installs:
            self._install(archive.name, model, told)
        else:
            self.client.register(archive.name, model, **told)
        status = self._wait_ready(model, workers, seen)
        if (status.batch_size, status.max_batch_delay_ms) != (batch_size, max_batch_delay_ms):
            raise ServerError(
                f"TorchServe serves {model} with batchSize {status.batch_size} and maxBatchDelay {status.max_batch_delay_ms}; "
                f"asked were {batch_size} and {max_batch_delay_ms}"
            )
        return status

    def unload(self, model: str) -> None:
        """Unregister a model and wait until its workers are gone: the next one must not share the machine with them."""
        status = self.client.describe(model)
        self.client.unregister(model)
        deadline = time.monotonic() + STOP_S
        for pid, _ in status.workers if status is not None else ():
            while pid > 0 and Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(POLL_S)

    def _install(self, archive: str, model: str, told: Mapping[str, int]) -> None:
        """Register, which takes as long as pip does; what pip could not install is not left registered without workers."""
        try:
            self.client.register(archive, model, **told, deadline_s=self.ready_s)
        except ServerError as error:
            self.client.unregister(model)
            where = "PIP_INDEX_URL, PIP_FIND_LINKS, PIP_NO_INDEX and PIP_CONFIG_FILE say where pip looks"
            raise ServerError(f"{error}; pip's own words are in {self.logs}/server.log; {where}") from None

    def _wait_ready(self, model: str, workers: int, seen: Mark) -> Status:
        deadline = time.monotonic() + self.ready_s
        while time.monotonic() < deadline:
            status = self.client.describe(model)
            if status is not None and status.ready >= workers:
                return status
            if self.guard.poll() is not None:
                raise ServerError(f"TorchServe ended while it loaded {model}; read {self.logs}/server.log and console.log")
            failure = _failure(self._worker_log(seen))
            if failure is not None:
                self.client.unregister(model)
                raise WorkerError(f"the worker cannot load {model} (all it said is in {self.logs}/worker.log):\n\n{failure}")
            time.sleep(POLL_S)
        self.client.unregister(model)
        raise NotReady(
            f"{model} had no ready worker after {self.ready_s:.0f} s; read {self.logs}/worker.log or raise deploy.ready_s"
        )

    def _worker_log_mark(self) -> Mark:
        return mark(self.logs / "worker.log")

    def _worker_log(self, seen: Mark) -> str:
        return since(self.logs / "worker.log", seen)


@contextmanager
def serving(
    config: DeployConfig,
    logs: Path,
    *,
    accelerator: Accelerator | None = None,
    threads: int | None = None,
    installs: bool = False,
) -> Iterator[Server]:
    """Start a TorchServe without models; always stop it, whatever happens inside.

    `accelerator` is given only while load is measured on an emulated one; `threads` caps each worker's; `installs` has each
    archive's requirements installed for it alone, where it names them (`marline.archive.requirements_of`).
    Raises ServerError or NotReady where it does not come up.
    """
    preflight(config, logs)  # refused before anything is there to tidy up
    sweep()
    logs.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, STARTS + 1):
        folder, ports = new_folder(), free_ports(config.ports)
        guard = _start(folder, ports, config, logs, _told_workers(folder, accelerator, threads), installs=installs)
        try:
            client = _connect(guard, folder, ports, config, logs)
        except ServerError:
            _stop(guard)
            if attempt < STARTS and "Address already in use" in _read(logs / "server.log") + _read(logs / "console.log"):
                continue
            raise
        except BaseException:
            _stop(guard)
            raise
        break
    try:
        yield Server(client, folder, logs, config.ready_s, guard, installs)
    finally:
        _stop(guard)


def _told_workers(folder: Path, accelerator: Accelerator | None, threads: int | None) -> dict[str, str]:
    told = {"MARLINE_BATCH_LOG": str(folder / "batches")}
    if threads is not None:
        told["OMP_NUM_THREADS"] = str(threads)
    if accelerator is not None and accelerator.kind == "emulated":
        file = folder / "emulation.json"
        device = str(folder / "emulated.device")
        curve = {"points": accelerator.points, "jitter": accelerator.jitter}
        write_json(file, {**curve, "time_scale": accelerator.time_scale, "device": device})
        told["MARLINE_EMULATION"] = str(file)
    return told


def _start(
    folder: Path, ports: Ports, config: DeployConfig, logs: Path, more: Mapping[str, str], *, installs: bool
) -> subprocess.Popen[bytes]:
    java_home = java_home_of(config)
    (folder / "config.properties").write_text(properties(folder, ports, config, installs=installs))
    (folder / "log4j2.xml").write_text(log4j(logs.resolve()))
    (folder / "metrics.yaml").write_text(metrics())
    told = {
        "command": command(folder, java_home, sys.executable),
        "env": environment(folder, logs.resolve(), java_home, dict(more), installs=installs),
        "logs": str(logs.resolve()),
    }
    write_json(folder / "guard.json", told)
    guard = subprocess.Popen(
        [sys.executable, "-m", "marline.deploy._guard", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches us alone, and we decide
    )
    own(folder, guard.pid)
    return guard


def _connect(guard: subprocess.Popen[bytes], folder: Path, ports: Ports, config: DeployConfig, logs: Path) -> Client:
    deadline = time.monotonic() + config.ready_s
    keys = folder / "key_file.json"
    while time.monotonic() < deadline:
        if guard.poll() is not None:
            said = _read(logs / "console.log").strip()[-1000:]
            raise ServerError(f"TorchServe did not start; read {logs}/server.log and console.log\n{said}".rstrip())
        tokens = _tokens(keys) if config.tokens else Tokens("none", "none")  # then there is no such file
        if tokens is not None:
            management, metrics = (f"http://127.0.0.1:{port}" for port in (ports.management, ports.metrics))
            inference = f"http://{asked_at(config)}:{ports.inference}"
            client = Client(management, inference, tokens, metrics_url=metrics)
            if client.alive():
                return client
        time.sleep(POLL_S)
    raise NotReady(f"TorchServe did not answer within {config.ready_s:.0f} s; read {logs}/server.log or raise deploy.ready_s")


def _tokens(keys: Path) -> Tokens | None:
    try:
        return read_tokens(keys)
    except (FileNotFoundError, ValueError, KeyError):  # not there, or not there whole, yet
        return None


def _stop(guard: subprocess.Popen[bytes]) -> None:
    """Close the guard's stdin and wait for it; it ends Java and removes the folder."""
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(STOP_S)
    except subprocess.TimeoutExpired:
        guard.kill()  # the kernel then kills Java; the next start removes the folder
        guard.wait()


def _failure(log: str) -> str | None:
    """The first chain of tracebacks a worker printed, once it is whole; None while there is none."""
    said = re.sub(r"^W-\S+ - ", "", log, flags=re.MULTILINE)
    if TRACEBACK not in said:
        return None
    lines = said[said.index(TRACEBACK) :].splitlines()
    ends = [index for index, line in enumerate(lines) if line and not line.startswith((" ", TRACEBACK, "The above", "During"))]
    whole = [index for index in ends if not any(TRACEBACK in line for line in lines[index + 1 : index + 5])]
    return "\n".join(lines[: whole[0] + 1]) if whole else None


def _read(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""
