"""What a user sees, also where a run ends before it has begun."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as Terminal

from marline.core import Manifest
from pipelines.console import Console, Line


class Interrupted:
    """A terminal whose user presses Ctrl-C at the first line."""

    def print(self, *_: Any, **__: Any) -> None:
        raise KeyboardInterrupt


def test_an_interrupt_at_the_first_line_leaves_the_error_output_where_it_was(tmp_path: Path) -> None:
    outputs = sys.stdout, sys.stderr
    console = Console("digits_cnn", "report", tmp_path)
    console.terminal = Interrupted()  # type: ignore[assignment]

    with pytest.raises(KeyboardInterrupt), console:
        raise AssertionError("it must not begin")

    assert outputs == (sys.stdout, sys.stderr)


@pytest.mark.parametrize("cached", [True, False])
def test_a_tuning_run_ends_with_its_sentence(tmp_path: Path, cached: bool) -> None:
    answer = "batch_size=16 max_batch_delay_ms=2 workers=2 → 410 req/s at p99 ≤ 100 ms (99 % confidence, 5 load tests, 4 min)."
    facts = {"answer": answer, "load_tests": 5, "strategy": "predict", "tuned": {"sha256": "5f" * 32}}
    told: dict[str, Any] = {
        "stage": "tune",
        "model": "m",
        "run": "20260102-030405-6789",
        "outputs": {},
        "inputs": {},
        "config": {},
    }
    shown = io.StringIO()

    Line(Terminal(file=shown, soft_wrap=True), "tune").done(
        Manifest(**told, facts=facts, versions={}, seconds=1.0, folder=tmp_path), cached=cached
    )

    first, *_, last = shown.getvalue().strip().splitlines()
    assert "5 load tests, predict, tuned archive 5f5f5f5f5f5f" in first
    assert answer == last.strip()
