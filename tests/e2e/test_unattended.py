"""What a schedule has started meanwhile; the last of these files, as it takes up to two minutes to come."""

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.core import read_manifest

pytestmark = pytest.mark.e2e


def test_a_run_is_really_started_and_ctrl_c_leaves_no_process(
    scheduled: tuple[subprocess.Popen[str], Any], until: Callable[..., float]
) -> None:
    process, own = scheduled

    def finished() -> list[Path]:
        return list(own.artifacts.glob("digits_cnn/*/load/manifest.json"))

    took = until(finished, 150, "a scheduled run loads the model")
    print(f"the scheduled run was there {took:.0f} s later")
    assert "digits_cnn" == read_manifest(finished()[0].parent).model

    process.send_signal(signal.SIGINT)

    process.wait(30)
    until(lambda: not own.ours(), 10, "no process of the schedule")
