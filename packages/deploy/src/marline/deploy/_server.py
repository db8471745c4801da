"""A TorchServe of our own as a context: started, ready to take models, and gone without a trace at its end."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from marline.archive import version_of, with_version
from marline.core import (
    Accelerator,
    DeployConfig,
    GpuReader,
    NotReady,
    ServerError,
    WorkerError,
    file_sha256,
    seen_gpus,
    write_json,
)
from marline.deploy._client import Client, Status
from marline.deploy._folders import new_folder, own, sweep
from marline.deploy._gpu import gpu_environment
from marline.deploy._guard import guard_command
from marline.deploy._logs import Mark
from marline.deploy._preflight import check_archive, preflight
from marline.deploy._settings import Ports, asked_at, command, environment, free_ports, java_home_of, write_settings
from marline.deploy._tokens import Tokens, read_tokens, renewing, write_private
from marline.deploy._worker_log import first_failure, newest_failure, said, seen_to, starts

POLL_S = 0.1
STARTS = 3  # a port may be taken between our look and Java's
STOP_S = 20.0
WORDLESS_S = 5.0  # TorchServe may lose what a worker printed as it ended; the next one prints it again


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

    @property
    def token_file(self) -> Path:
        """The inference token as it is now, as {"token": ...}, for senders outside this process; its owner's alone."""
        return self.folder / "token.json"

    @property
    def alive(self) -> bool:
        """Whether Java runs; its guard may still be tidying up when it does not."""
        try:
            return self.guard.poll() is None and Path("/proc", (self.folder / "java.pid").read_text()).exists()
        except FileNotFoundError:
            return False

    def load(self, archive: Path, model: str, *, batch_size: int, max_batch_delay_ms: int, workers: int) -> Status:
        """Register an archive and wait until all its workers are READY; the values read back are those sent.

        Beside other versions of the model it is one more, and nobody is sent to it who does not name it. Where its version is
        that of another archive, a copy is registered whose version adds eight digits of the sha256. What is there is left.
        Raises WorkerError with the worker's traceback as soon as there is one, NotReady at the deadline; both unregister it.
        """
        check_archive(archive, self.folder)
        sha256, versions = file_sha256(archive), self.client.versions(model)
        stored = self.folder / "store" / f"{archive.stem}-{sha256[:12]}.mar"  # by its content: names what serves a version
        version = next((one.version for one in versions if one.archive == stored.name), None)
        seen = seen_to(self.logs)
        if version is None:
            version = version_of(archive)
            if version in {one.version for one in versions}:
                version = f"{version}-{sha256[:8]}"
                with_version(archive, version, stored)
            else:
                _link(archive, stored)
            self._register(
                stored, model, version, {"batch_size": batch_size, "max_batch_delay_ms": max_batch_delay_ms}, workers
            )
        status = self._wait_ready(model, version, workers, seen)
        if (status.batch_size, status.max_batch_delay_ms) != (batch_size, max_batch_delay_ms):
            raise ServerError(
                f"TorchServe serves {model} {version} with batchSize {status.batch_size} and maxBatchDelay "
                f"{status.max_batch_delay_ms}; asked were {batch_size} and {max_batch_delay_ms}: unload it before"
            )
        return status

    def scale(self, model: str, workers: int, version: str | None = None) -> Status:
        """Have so many READY workers for a version, the default one where none is named; NotReady at the deadline.

        A worker that goes fails the batch it has in hand: to have fewer without loss, swap to an archive that asks for fewer.
        """
        self.client.scale(model, workers, version)
        deadline = time.monotonic() + self.ready_s
        while time.monotonic() < deadline:
            status = self.client.describe(model, version)
            if status is None:
                raise ServerError(f"{model} {version or ''} is gone while it was scaled to {workers} worker(s)")
            if len(status.workers) == status.ready == workers:
                return status
            time.sleep(POLL_S)
        raise NotReady(f"{model} had not {workers} ready worker(s) after {self.ready_s:.0f} s; read {self.logs}/worker.log")

    def unload(self, model: str, version: str | None = None) -> None:
        """Unregister a version, all of a model where none is named, and wait until its workers are gone.

        The next one must not share the machine with them. Requests in hand or in the queue are lost: `drain` before.
        """
        versions = [one for one in self.client.versions(model) if version in {None, one.version}]
        default = self.client.describe(model) if len(versions) > 1 else None
        versions.sort(key=lambda one: default is not None and one.version == default.version)  # TorchServe wants it last
        for one in versions:
            self.client.unregister(model, one.version)
            (self.folder / "store" / one.archive).unlink(missing_ok=True)
        deadline = time.monotonic() + STOP_S
        for pid, _ in (worker for one in versions for worker in one.workers):
            while pid > 0 and Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(POLL_S)

    def traceback(self, model: str, version: str) -> str | None:
        """The newest that a worker of a version printed."""
        return newest_failure(said(self.logs, Mark(), model, version))

    def _register(self, stored: Path, model: str, version: str, told: Mapping[str, int], workers: int) -> None:
        """Register; where the server installs, that takes as long as pip does, and what pip could not install is not left."""
        if not self.installs:
            self.client.register(stored.name, model, **told, workers=workers)
        else:
            try:
                self.client.register(stored.name, model, **told, workers=workers, deadline_s=self.ready_s)
            except ServerError as error:
                self.client.unregister(model, version)
                where = "PIP_INDEX_URL, PIP_FIND_LINKS, PIP_NO_INDEX and PIP_CONFIG_FILE say where pip looks"
                raise ServerError(f"{error}; pip's own words are in {self.logs}/server.log; {where}") from None
        status = self.client.describe(model, version)
        if status is not None and len(status.workers) != workers:  # the archive asks for another number, and comes first
            self.client.scale(model, workers, version)

    def _wait_ready(self, model: str, version: str, workers: int, seen: Mark) -> Status:
        deadline, again_s = time.monotonic() + self.ready_s, float("inf")
        while time.monotonic() < deadline:
            status = self.client.describe(model, version)
            if status is not None and status.ready >= workers:
                return status
            if not self.alive:
                raise ServerError(f"TorchServe ended while it loaded {model}; read {self.logs}/server.log and console.log")
            if starts(self.logs, seen, model, version) > 1:
                again_s = min(again_s, time.monotonic())
            failure = first_failure(said(self.logs, seen, model, version))
            if failure is not None:
                self.unload(model, version)
                raise WorkerError(f"the worker cannot load {model} (all it said is in {self.logs}/worker.log):\n\n{failure}")
            if time.monotonic() > again_s + WORDLESS_S:  # TorchServe would go on like this
                self.unload(model, version)
                raise NotReady(
                    f"a worker of {model} was ended before it was ready: it takes longer to load than the archive's "
                    f"startupTimeout, or was killed; raise archive.startup_timeout_s or read {self.logs}/worker.log"
                )
            time.sleep(POLL_S)
        self.unload(model, version)
        raise NotReady(
            f"{model} had no ready worker after {self.ready_s:.0f} s; read {self.logs}/worker.log or raise deploy.ready_s"
        )


def _link(archive: Path, stored: Path) -> None:
    stored.unlink(missing_ok=True)
    try:
        os.link(archive.resolve(), stored)
    except OSError:  # another file system
        stored.write_bytes(archive.read_bytes())


@contextmanager
def serving(
    config: DeployConfig,
    logs: Path,
    *,
    accelerator: Accelerator | None = None,
    threads: int | None = None,
    installs: bool = False,
    gpus: GpuReader | None = None,
) -> Iterator[Server]:
    """Start a TorchServe without models; always stop it, whatever happens inside.

    `accelerator` is given only while load is measured on an emulated one; `threads` caps each worker's; `installs` has each
    archive's requirements installed for it alone, where it names them (`marline.archive.requirements_of`). `gpus` knows the
    GPUs of this machine, NVML where nothing is said; the server gets those that CUDA_VISIBLE_DEVICES names.
    Raises ServerError or NotReady where it does not come up.
    """
    preflight(config, logs)  # refused before anything is there to tidy up
    sweep()
    logs.mkdir(parents=True, exist_ok=True)
    seen = seen_gpus(gpus)
    for attempt in range(1, STARTS + 1):
        folder = new_folder()
        try:
            ports = free_ports(config.ports)
            more = {**_told_workers(folder, accelerator, threads), **gpu_environment(seen)}
            guard = _start(folder, ports, config, logs, more, installs=installs, gpus=len(seen))
        except BaseException:  # Ctrl-C too: no guard looks after the folder yet, and the next start may be far away
            shutil.rmtree(folder, ignore_errors=True)
            raise
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
    server, tokens = Server(client, folder, logs, config.ready_s, guard, installs), client.tokens
    try:
        tokens.followers.append(lambda: write_private(server.token_file, json.dumps({"token": tokens.inference})))
        tokens.followers[0]()
        with renewing(tokens, config.token_min * 60, client.renew):
            yield server
    finally:
        _stop(guard)


def _told_workers(folder: Path, accelerator: Accelerator | None, threads: int | None) -> dict[str, str]:
    told = {"MARLINE_BATCH_LOG": str(folder / "batches")}
    if threads is not None:
        told["OMP_NUM_THREADS"] = str(threads)
    if accelerator is not None and accelerator.kind == "emulated":
        file = folder / "emulation.json"
        device = str(folder / "emulated.device")
        curve = {"points": accelerator.points, "jitter": accelerator.jitter, "stalls": accelerator.stalls}
        write_json(file, {**curve, "time_scale": accelerator.time_scale, "device": device})
        told["MARLINE_EMULATION"] = str(file)
    return told


def _start(
    folder: Path, ports: Ports, config: DeployConfig, logs: Path, more: Mapping[str, str], *, installs: bool, gpus: int
) -> subprocess.Popen[bytes]:
    java_home = java_home_of(config)
    write_settings(folder, ports, config, logs, installs=installs, gpus=gpus)
    told = {
        "command": command(folder, java_home, sys.executable),
        "env": environment(folder, logs.resolve(), java_home, dict(more), installs=installs),
        "logs": str(logs.resolve()),
    }
    write_json(folder / "guard.json", told)
    guard = subprocess.Popen(
        guard_command(folder),
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
            told = _read(logs / "console.log").strip()[-1000:]
            raise ServerError(f"TorchServe did not start; read {logs}/server.log and console.log\n{told}".rstrip())
        tokens = _tokens(keys) if config.tokens else Tokens("none", "none")  # then there is no such file
        if tokens is not None:
            management, metrics = (f"http://127.0.0.1:{port}" for port in (ports.management, ports.metrics))
            inference = f"http://{asked_at(config)}:{ports.inference}"
            grpc = (f"127.0.0.1:{port}" for port in (ports.grpc_inference, ports.grpc_management))
            client = Client(management, inference, tokens, None, metrics, *grpc)
            if tokens.expires_s <= time.time():  # short ones may be over before TorchServe listens
                with suppress(ServerError):
                    client.renew()
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


def _read(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""
