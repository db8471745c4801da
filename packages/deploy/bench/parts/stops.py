"""Starts and stops, some of them by SIGKILL, and what stays: processes, ports, sockets, files, tokens."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from marline.core import StageError
from packages.handler.bench.parts.archives import life
from packages.handler.bench.parts.figure import figure

MODEL, CYCLES, STOP_S, GONE_S = "digits_cnn", 20, 20.0, 10.0
KILLED = {3: "holder", 7: "guard", 9: "Java", 12: "worker", 14: "holder", 16: "guard", 17: "Java", 18: "worker"}
HOLD = """
import sys
from pathlib import Path
from marline.core import read_config
from marline.deploy import serving

with serving(read_config(["model=digits_cnn"]).config.deploy, Path(sys.argv[1])) as server:
    server.load(Path(sys.argv[2]), "digits_cnn", batch_size=1, max_batch_delay_ms=100, workers=1)
    print(server.folder, server.guard.pid, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A server in a process of its own, and everything of it that must go."""

    holder: subprocess.Popen[str]
    folder: Path
    guard: psutil.Process
    java: psutil.Process
    worker: psutil.Process
    ports: set[int]

    def left(self, *, files: bool) -> list[str]:
        """What is still there; the folder holds sockets, unpacked models and tokens."""
        running = [one for one in (self.guard, self.java, self.worker) if _runs(one)]
        named = [one.pid for one in psutil.process_iter(["cmdline"]) if str(self.folder) in " ".join(one.info["cmdline"] or [])]
        ports = self.ports & _listening(psutil.net_connections("tcp"))
        there = [str(self.folder)] if files and self.folder.exists() else []
        return [*(f"process {one.pid}" for one in running), *map(str, named), *(f"port {port}" for port in ports), *there]


def stops() -> list[dict[str, Any]]:
    """Things of ours that are left after 20 starts and stops, among them SIGKILL of everything that can be killed."""
    archive, took, left = life(MODEL).archive, list[float](), list[str]()
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as kept:
        before: Held | None = None
        for cycle in range(CYCLES):
            what = KILLED.get(cycle)  # the last is an ordinary one, which removes what the one before may have left
            held = _hold(archive, Path(kept))
            if before is not None and before.folder.exists():  # of a guard that was killed: the next start removes it
                left.append(f"cycle {cycle}: {before.folder}")
            seconds = _end(held, what)
            found = held.left(files=what != "guard")
            left += [f"cycle {cycle} ({what or 'stop'}): {one}" for one in found]
            took += [seconds] if what is None else []
            print(f"  {cycle + 1}: {what or 'stop'}, {seconds:.1f} s, left: {', '.join(found) or 'nothing'}", flush=True)
            before = held
    kills = ", ".join(f"{list(KILLED.values()).count(one)} x {one}" for one in dict.fromkeys(KILLED.values()))
    note = f"SIGKILL: {kills}; processes within {GONE_S:g} s, a killed guard's files by the next start"
    return [
        figure("left after 20 starts and stops", len(left), "things", 0, not left, CYCLES, "; ".join([note, *left])[:600]),
        figure("the slowest stop", max(took), "s", STOP_S, max(took) <= STOP_S, len(took), f"median {median(took):.1f} s"),
    ]


def _hold(archive: Path, logs: Path) -> Held:
    command = [sys.executable, "-c", HOLD, str(logs), str(archive)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert holder.stdout is not None
    said = holder.stdout.readline().split()
    if not said:
        raise StageError(f"a server did not start; read {logs}")
    guard = psutil.Process(int(said[1]))
    (java,) = guard.children()
    worker = next(one for one in java.children(recursive=True) if "model_service_worker" in " ".join(one.cmdline()))
    ports = _listening(found for one in (java, worker) for found in one.net_connections("tcp"))
    return Held(holder, Path(said[0]), guard, java, worker, ports)


def _end(held: Held, what: str | None) -> float:
    """End a server in its way; the seconds until nothing of it is left, or until it should have been so."""
    killed = {"holder": held.holder.pid, "guard": held.guard.pid, "Java": held.java.pid, "worker": held.worker.pid}
    began = time.monotonic()
    if what is not None:
        os.kill(killed[what], signal.SIGKILL)
    if what == "worker":
        _until(lambda: not _runs(held.worker), GONE_S)
        began = time.monotonic()
    if what in {None, "worker"}:
        assert held.holder.stdin is not None
        held.holder.stdin.close()
        held.holder.wait(STOP_S + GONE_S)
    _until(lambda: not held.left(files=what != "guard"), GONE_S)
    seconds = time.monotonic() - began
    if held.holder.poll() is None:
        assert held.holder.stdin is not None
        held.holder.stdin.close()
        held.holder.wait(STOP_S + GONE_S)
    return seconds


def _until(true: Callable[[], bool], deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _listening(connections: Iterable[Any]) -> set[int]:
    return {found.laddr.port for found in connections if found.status == psutil.CONN_LISTEN}
