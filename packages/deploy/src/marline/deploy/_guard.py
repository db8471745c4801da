"""Owns one Java process: `python -m marline.deploy._guard FOLDER`. Whoever started us holds the other end of our stdin.

When that end closes, because its holder is done, was interrupted or was killed with SIGKILL, Java and its workers are ended
and the server's folder is removed. When we are killed ourselves, the kernel kills Java, its workers see their sockets close,
and the next start removes the folder.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
GRACE_S = 5.0
WORKERS_S = 2.5  # the tracker gives its last reports 1.9 s


def main(folder: Path) -> int:
    """Run until told to stop; returns Java's exit code, 0 after an ordered stop."""
    told = json.loads((folder / "guard.json").read_text())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is our holder's business; it will close our stdin
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    with Path(told["logs"], "console.log").open("ab") as console:
        java = subprocess.Popen(
            told["command"],
            cwd=folder,
            env=told["env"],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
        )
    (folder / "java.pid").write_text(str(java.pid))
    while java.poll() is None and not stopping:
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], 0.2)
        if readable and not os.read(sys.stdin.fileno(), 1):
            break
    code = java.poll()
    end_tree(java.pid)
    java.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return code or 0


def end_tree(pid: int) -> None:
    """End a process and all below it: politely, then surely. They are listed first, as orphans cannot be found later."""
    try:
        root = psutil.Process(pid)
        tree = [*root.children(recursive=True), root]
    except psutil.NoSuchProcess:
        return
    _end_workers(root, tree[:-1])
    root.terminate()
    _, alive = psutil.wait_procs(tree, timeout=GRACE_S)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=GRACE_S)


def _end_workers(java: psutil.Process, workers: Sequence[psutil.Process]) -> None:
    """Let workers end in their own way: Java kills them without a word, and what they still had to report is lost.

    Java is held meanwhile, else it would start others in their place.
    """
    with suppress(psutil.NoSuchProcess):
        java.suspend()
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.terminate()
    psutil.wait_procs(workers, timeout=WORKERS_S)
    with suppress(psutil.NoSuchProcess):
        java.resume()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
