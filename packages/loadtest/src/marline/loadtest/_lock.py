"""One measurement at a time on a machine: two would each measure the other."""

import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from marline.core import LoadTestError, progress

LOCK = Path("/tmp/marline-measuring.lock")  # noqa: S108 - TMPDIR may differ between runs that share the machine
POLL_S = 0.2
QUIET_PERCENT, QUIET_S = 15.0, 10.0  # of all cores, as an idle server and this process use 2 to 5; and how long to hope for it


@contextmanager
def measuring(who: str, *, say: Callable[[str], None] = print, lock: Path = LOCK) -> Iterator[None]:
    """Hold the machine's measurement lock as `who`; while another has it, say once for whom we wait, and wait.

    The kernel releases it when the process dies, however it dies.
    """
    descriptor = _open(lock)
    try:
        _acquire(descriptor, say)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{who} (process {os.getpid()})".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def wait_until_quiet(seconds: float = QUIET_S) -> bool:
    """Wait while other programs keep the machine busy, for so long at most; whether it is quiet now."""
    deadline = time.monotonic() + seconds
    while psutil.cpu_percent(interval=1.0) > QUIET_PERCENT:
        if time.monotonic() > deadline:
            return False
    return True


def _open(lock: Path) -> int:
    """Open or make the file, writable by all; a link, or a file with two names, could be somebody's trap."""
    while True:
        try:
            # Without O_CREAT: the kernel refuses that for another user's file in /tmp (sysctl fs.protected_regular).
            descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            _make(lock)
            continue
        except OSError as error:
            raise LoadTestError(f"the measurement lock {lock} cannot be opened: {error.strerror}; remove that file") from None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(descriptor)
            raise LoadTestError(f"the measurement lock {lock} is not a plain file of its own; remove it")
        return descriptor


def _make(lock: Path) -> None:
    try:
        descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileExistsError:  # another was quicker
        return
    os.fchmod(descriptor, 0o666)  # whatever the umask is
    os.close(descriptor)


def _acquire(descriptor: int, say: Callable[[str], None]) -> None:
    said = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not said:
                text = f"waiting for {_holder(descriptor)}, who is measuring on this machine"
                progress(0.0, text)
                say(text)
                said = True
            time.sleep(POLL_S)
        else:
            return


def _holder(descriptor: int) -> str:
    name = os.pread(descriptor, 200, 0).decode(errors="replace")
    return "".join(letter for letter in name if letter.isprintable()) or "somebody"
