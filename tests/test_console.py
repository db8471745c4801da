"""What a user sees, also where a run ends before it has begun."""

import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.console import Console


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
