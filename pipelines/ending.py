"""Ends what a process of ours started, when that is killed: `python -I -S ending.py PID`, which needs nothing but Python.

Servers and load generators of ours look after themselves. Prefect's server does not: it is a plain child, and
after a SIGKILL of its parent it would stay and listen for ever.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

LOOK_S = 0.5
AGAIN_S = 0.1
ORDERLY = b"."


@contextmanager
def ending_with_us(grace_s: float = 0.0) -> Iterator[None]:
    """While inside, a process looks on that ends our children if we die; at an orderly end they are left to end themselves.

    With `grace_s` those that do not end when asked are killed so many seconds later.
    """
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(grace_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as watcher:
        try:
            yield
        finally:
            assert watcher.stdin is not None
            watcher.stdin.write(ORDERLY)


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, whatever is raised once an interrupt came is that interrupt: a half imported library raises anything.

    One that comes while an object is being deleted cannot be raised there; it comes again a moment later.
    """
    came: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield  # who started us has it ignored, or it comes to another thread
        return

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        before(number, frame)

    def again(lost: "sys.UnraisableHookArgs") -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            threading.Timer(AGAIN_S, signal.pthread_kill, [threading.get_ident(), signal.SIGINT]).start()
        else:
            unraisable(lost)

    unraisable, sys.unraisablehook = sys.unraisablehook, again
    signal.signal(signal.SIGINT, note)
    try:
        yield
    except Exception as error:
        if came:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = unraisable


def watch(parent: int, grace_s: float) -> None:
    """Note every child of `parent` until our stdin says that it is done (a byte) or dead (the end)."""
    seen: dict[int, str] = {}
    while True:
        for child in _children(parent):
            seen.setdefault(child, _started(child))
        if select.select([sys.stdin], [], [], LOOK_S)[0]:
            break
    if os.read(sys.stdin.fileno(), 1) != ORDERLY:
        seen.pop(os.getpid(), None)
        _send(signal.SIGTERM, seen)
        deadline = time.monotonic() + grace_s
        while grace_s and _left(seen):
            if time.monotonic() > deadline:
                _send(signal.SIGKILL, seen)
                break
            time.sleep(LOOK_S / 5)


def _send(number: int, seen: dict[int, str]) -> None:
    for pid in _left(seen):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _left(seen: dict[int, str]) -> list[int]:
    return [pid for pid, started in seen.items() if started and started == _started(pid)]


def _children(pid: int) -> Iterator[int]:
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            yield from map(int, thread.read_text().split())


def _started(pid: int) -> str:
    """When a process started, in clock ticks: with its number it is unique; empty where there is none, or none any more."""
    with suppress(FileNotFoundError, ProcessLookupError):
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if told[0] == "Z" else told[19]
    return ""


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    watch(int(sys.argv[1]), float(sys.argv[2]))
