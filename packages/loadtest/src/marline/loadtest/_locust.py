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
def locust(file: str, words: Sequence[str], plan: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `loadtests/<file>` on a plan, its output in locust.log beside that; on leaving, the process is gone."""
    out = plan.parent.resolve()
    # With its own folder as home and working folder locust finds no configuration file of somebody else's.
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {"HOME": str(out), "MARLINE_PLAN": str(plan.resolve()), "OTEL_SDK_DISABLED": "true"}
    command = [sys.executable, "-m", "locust", "-f", str(project_root() / "loadtests" / file), *words]
    launched = [sys.executable, "-I", "-S", str(_child.__file__), str(os.getpid()), *command]
    with (out / "locust.log").open("wb") as log:
        process = subprocess.Popen(
            launched, env=environment, cwd=out, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
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
