"""Owns one Java process: `python -I _guard.py FOLDER`. Whoever started us holds the other end of our stdin.

It is run as a file, as the package around it imports torch: seconds, and half a gigabyte for as long as a server runs.

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
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
GRACE_S = 5.0  # the tracker gives its last reports 1.9 s


def guard_command(folder: Path) -> list[str]:
    """What starts the guard of a server's folder."""
    return [sys.executable, "-I", __file__, str(folder)]


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
    if code is not None:  # its workers are nobody's children any more
        end_strays(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return code or 0


def end_tree(java: int) -> None:
    """End Java and all below it. They are listed first, as orphans cannot be found later.

    Workers end in their own way: Java would kill them without a word, and what they still have to report would be lost. It is
    held meanwhile, else it would start others in their place; after them there is nothing for it to put in order.
    """
    try:
        root = psutil.Process(java)
        root.suspend()
        workers = root.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.terminate()
    _wait(workers)
    for process in [*workers, root]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _wait([*workers, root])


def end_strays(folder: Path) -> None:
    """End what runs in a server's folder: Java names it in its command line, workers in the paths of their sockets."""
    for process in psutil.process_iter(["cmdline", "uids"]):
        words, uids = process.info["cmdline"] or [], process.info["uids"]
        ours = uids is not None and uids.real == os.getuid() and process.pid not in {os.getpid(), os.getppid()}
        if ours and __file__ not in words and any(str(folder) in word for word in words):
            end_tree(process.pid)


def _wait(processes: Sequence[psutil.Process]) -> None:
    deadline = time.monotonic() + GRACE_S
    while not all(map(_over, processes)) and time.monotonic() < deadline:
        time.sleep(0.02)


def _over(process: psutil.Process) -> bool:
    """Whether it has ended, though its parent is held, or careless, and takes no note of that."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
