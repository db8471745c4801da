"""Real collectors on loopback, and programs that hold nothing but a copy of the tracker file."""

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

MODEL = """
import marline_tracker as t
class Model:
    tracker = t.Tracker(t.Settings({url!r}, "tiny", {detail!r}, {rate!r}))
    @t.tracked
    def forward(self, value: float, scale: float = 1.0) -> float:
        return 1.0 / value * scale
    @t.tracked
    def generate(self) -> list[float]:
        return [self.forward(value) for value in (1.0, 2.0, 4.0)]
model = Model()
"""


@dataclass(frozen=True)
class Ran:
    """A finished program."""

    out: list[str]
    log: str
    seconds: float


@pytest.fixture
def collector() -> Iterator[FakeCollector]:
    """One that takes batches."""
    with fake_collector(batches=True) as kept:
        yield kept


@pytest.fixture
def byne_serve() -> Iterator[FakeCollector]:
    """One that knows single reports alone."""
    with fake_collector() as kept:
        yield kept


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Ran]:
    """Run Python code beside a copy of the tracker named `marline_tracker.py`, in an otherwise empty environment."""
    shutil.copy(FILE, tmp_path / "marline_tracker.py")

    def run(code: str, *, deadline_s: float = 30, **variables: str) -> Ran:
        env = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "PATH": os.environ["PATH"], **variables}
        command = [sys.executable, "-S", "-W", "error", "-c", code]
        started = time.monotonic()
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=deadline_s, check=False)
        assert 0 == done.returncode, done.stderr
        return Ran(done.stdout.splitlines(), done.stderr, time.monotonic() - started)

    return run


@pytest.fixture
def model() -> Callable[..., str]:
    """The code that makes a `model` with two tracked methods."""

    def code(url: str | None, detail: str = "minimal", rate: float = 1.0) -> str:
        return MODEL.format(url=url, detail=detail, rate=rate)

    return code
