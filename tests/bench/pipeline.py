"""Benchmark `pipeline`: what the stages of a run cost, what orchestration adds, and what a cached rerun takes.

Runs digits_cnn once with profile smoke in a folder of its own, three times more from the cache, and once with profile standard.
A run's wall time is that of the whole command, its stages' that of their own work as manifests say. About seven minutes.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from marline.core import STAGES, Manifest, read_manifest

RERUNS = 3
RUN_S = 900.0
OTHERS = "start, Prefect and its server, imports, hashing: all that is in no stage"


def figures() -> list[dict[str, Any]]:
    """Seconds per stage of one run, the share of a standard one that no stage accounts for, and the cached reruns."""
    with tempfile.TemporaryDirectory(prefix="marline-bench-", dir="artifacts") as folder:
        whole, stages = _run("smoke", folder)
        reruns = [_run("smoke", folder) for _ in range(RERUNS)]
        cached = sum(one.run != again[-1].run for _, again in reruns[-1:] for one in again)
    with tempfile.TemporaryDirectory(prefix="marline-bench-", dir="artifacts") as folder:
        standard, long = _run("standard", folder)
    rows = [_figure(one.stage, one.seconds, "s", None, None, 1, "") for one in stages]
    share = 100 * (1 - sum(one.seconds for one in long) / standard)
    again, added = [seconds for seconds, _ in reruns], [seconds - made[-1].seconds for seconds, made in reruns]
    return [
        *rows,
        _figure("whole run", whole, "s", 240, whole <= 240, 1, "profile smoke, environment installed"),
        _figure("standard run", standard, "s", None, None, 1, "profile standard, nothing cached"),
        _figure("orchestration of a standard run", share, "%", 5, share <= 5, 1, OTHERS),
        _figure("cached rerun", median(again), "s", 30, median(again) <= 30, RERUNS, _spread(again)),
        _figure("orchestration of a cached rerun", median(added), "s", 20, median(added) <= 20, RERUNS, _spread(added)),
        _figure("stages taken from the cache", cached, "stages", len(STAGES), cached == len(STAGES), 1, ""),
    ]


def _run(profile: str, artifacts: str) -> tuple[float, list[Manifest]]:
    """Seconds of the whole command, and what its stages left."""
    began = time.monotonic()
    words = ["model=digits_cnn", f"profile={profile}", f"artifacts={artifacts}"]
    subprocess.run([sys.executable, "-m", "pipelines", *words], check=True, timeout=RUN_S)
    seconds = time.monotonic() - began
    return seconds, [read_manifest(Path(artifacts, "digits_cnn", "latest", stage)) for stage in STAGES]


def _spread(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f} s"


def _figure(
    name: str, value: float, unit: str, bar: float | None, holds: bool | None, samples: int, note: str
) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": unit, "bar": bar, "holds": holds, "samples": samples, "note": note}
