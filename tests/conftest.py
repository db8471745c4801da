"""For every test across packages."""

import time
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def until() -> Callable[..., float]:
    """Wait until something is so; returns how long it took, and fails at the deadline."""

    def wait(true: Callable[[], object], deadline_s: float, what: str) -> float:
        began = time.monotonic()
        while not true():
            assert time.monotonic() - began < deadline_s, f"not within {deadline_s:g} s: {what}"
            time.sleep(0.1)
        return time.monotonic() - began

    return wait
