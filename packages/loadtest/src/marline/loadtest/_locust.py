"""Run locust as a child that is quiet, that ends when we do, and that gets nothing of our environment but what is listed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from marline.core import project_root
from marline.loadtest import _child

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
POLL_S = 0.2
GRACE_S = 5.0


@contextmanager
def locust(
    file: str, words: Sequence[str], out: Path, plan: Path | None, log: str = "locust.log"
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `loadtests/<file>` in `out`, on a plan unless it is a worker, what it says in `log`; it is gone on leaving."""
    out = out.resolve()
    # With its own folder as home and working folder locust finds no configuration file of somebody else's.
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {"HOME": str(out), "OTEL_SDK_DISABLED": "true"}
    environment |= {"MARLINE_PLAN": str(plan.resolve())} if plan is not None else {}
    command = [sys.executable, "-m", "locust", "-f", str(project_root() / "loadtests" / file), *words]
    launched = [sys.executable, "-I", "-S", str(_child.__file__), str(os.getpid()), *command]
    with (out / log).open("wb") as stream:
        process = subprocess.Popen(
            launched, env=environment, cwd=out, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        yield process
    finally:
        _end(process)


def wait(process: subprocess.Popen[bytes], deadline_s: float, waited: Callable[[float], None]) -> int | None:
    """The exit code, or None at the deadline; `waited` hears now and then how many seconds have gone by."""
    began = time.monotonic()
    while (passed_s := time.monotonic() - began) < deadline_s:
        waited(passed_s)
        try:
            return process.wait(POLL_S)
        except subprocess.TimeoutExpired:
            continue
    return None


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)  # it leads its own session, and with it its own group
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                continue
