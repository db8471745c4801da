"""Benchmark `pipeline`: what the stages of a smoke run cost, what orchestration adds, and what a cached rerun takes.

Runs digits_cnn once in a folder of its own and twice more from the cache; a run's wall time is that of the whole command.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

RERUNS = 3
RUN_S = 600.0


def figures() -> list[dict[str, Any]]:
    """Seconds per stage of one run, the share of it no stage accounts for, and the median of the cached reruns."""
    with tempfile.TemporaryDirectory(prefix="marline-bench-", dir="artifacts") as folder:
        words = ["model=digits_cnn", "profile=smoke", f"artifacts={folder}"]
        whole = _seconds(words)
        stages = _stages(Path(folder))
        reruns = [_seconds(words) for _ in range(RERUNS)]
        cached = [stage["cached"] for stage in _stages(Path(folder)) if stage["name"] != "report"]
    rows = [_figure(f"{stage['name']}", stage["seconds"], "s", None, None, 1, "") for stage in stages]
    share = 1 - sum(stage["seconds"] for stage in stages) / whole
    spread = f"{min(reruns):.1f} to {max(reruns):.1f} s"
    return [
        *rows,
        _figure("whole run", whole, "s", 240, whole <= 240, 1, "profile smoke, environment installed"),
        _figure("orchestration share", 100 * share, "%", None, None, 1, "start, Prefect, hashing; not in any stage"),
        _figure("cached rerun", median(reruns), "s", 30, median(reruns) <= 30, RERUNS, spread),
        _figure("stages taken from the cache", sum(cached), "stages", 6, sum(cached) == 6, 1, "all but the report"),
    ]


def _seconds(words: list[str]) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "pipelines", *words], check=True, timeout=RUN_S)
    return time.monotonic() - began


def _stages(artifacts: Path) -> list[dict[str, Any]]:
    report = json.loads((artifacts / "digits_cnn" / "latest" / "report" / "report.json").read_text())
    stages: list[dict[str, Any]] = report["stages"]
    return stages


def _figure(
    name: str, value: float, unit: str, bar: float | None, holds: bool | None, samples: int, note: str
) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": unit, "bar": bar, "holds": holds, "samples": samples, "note": note}
