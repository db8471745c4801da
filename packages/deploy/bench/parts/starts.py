"""From archive to READY, beside TorchServe's own command with the same archive."""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from marline.core import read_config
from marline.deploy import serving
from packages.handler.bench.parts.archives import Life, life
from packages.handler.bench.parts.elsewhere import plain_torchserve
from packages.handler.bench.parts.figure import figure, ratios, spread, turns

MODEL, PASSES, LIMIT = "digits_cnn", 6, 1.2


def starts() -> list[dict[str, Any]]:
    """Seconds from nothing to READY: ours over `torchserve --start --models`, in pairs."""
    made = life(MODEL)
    contenders: dict[str, Callable[[Life], float]] = {"ours": _ours, "bare": _bare}
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for name in turns(list(contenders), PASSES):
        took[name].append(contenders[name](made))
        print(f"  {name}: {took[name][-1]:.1f} s", flush=True)
    found = ratios(took, "ours", "bare")
    seen = f"{median(took['ours']):.2f} against {median(took['bare']):.2f} s; ratios of pairs {spread(found)}"
    return [
        figure("archive to READY, over torchserve --start", median(found), "x", LIMIT, median(found) <= LIMIT, PASSES, seen)
    ]


def _ours(made: Life) -> float:
    config = read_config([f"model={MODEL}"]).config.deploy
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as kept:
        began = time.monotonic()
        with serving(config, Path(kept, "logs")) as server:
            server.load(made.archive, MODEL, batch_size=1, max_batch_delay_ms=100, workers=1)
            return time.monotonic() - began


def _bare(made: Life) -> float:
    began = time.monotonic()
    with plain_torchserve(Path(sys.executable), made):
        return time.monotonic() - began
