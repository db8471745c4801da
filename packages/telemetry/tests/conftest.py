"""A real collector on loopback, and programs that hold nothing but a copy of the tracker file."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from marline.telemetry import FILE, FakeCollector, fake_collector


@dataclass(frozen=True)
class Ran:
    """A finished program."""

    out: list[str]
    log: str
    seconds: float


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    with fake_collector() as kept:
        yield kept


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Ran]:
    """Run Python code beside a copy of the tracker named `marline_tracker.py`, in an otherwise empty environment."""
    shutil.copy(FILE, tmp_path / "marline_tracker.py")

    def run(code: str, **variables: str) -> Ran:
        env = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "PATH": os.environ["PATH"], **variables}
        command = [sys.executable, "-S", "-W", "error", "-c", code]
        started = time.monotonic()
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30, check=False)
        assert 0 == done.returncode, done.stderr
        return Ran(done.stdout.splitlines(), done.stderr, time.monotonic() - started)

    return run
