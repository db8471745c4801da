"""Benchmark `plan`: a day of 100,000 requests/s and one of a million, planned by the command on one core, and their proofs.

The replica is made by hand, like a ResNet-50 on a T4 that jitters: the figures do not depend on what this machine has tuned.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from marline.core import project_root, read_config, seal
from marline.tune import Point, Service
from packages.handler.bench.parts.figure import figure

MODEL, SLO_MS, MOST_S, CLOSE = "digits_cnn", 100.0, 60.0, 5.0
CHOSEN = {"batch_size": 16, "max_batch_delay_ms": 2, "workers": 1, "rps": 700.0, "slo_met": True, "samples": 40_000}
DAYS = (
    ("100,000/s, round robin", "plan.rps=100000", "plan.balancing=round_robin"),
    ("100,000/s, least outstanding", "plan.rps=100000", "plan.balancing=least_outstanding"),
    ("1,000,000/s, round robin", "plan.rps=1000000", "plan.balancing=round_robin"),
    ("1,000,000/s, least outstanding", "plan.rps=1000000", "plan.balancing=least_outstanding"),
)


def figures() -> list[dict[str, Any]]:
    """Seconds of the whole command, compiled beforehand as in every run but the first, and how far off levels are."""
    with tempfile.TemporaryDirectory() as folder:
        _tuned(Path(folder))
        return [row for name, *words in DAYS for row in _day(Path(folder), name, words)]


def _tuned(artifacts: Path) -> None:
    """A finished tuning of the replica, as the command reads it."""
    run = artifacts / MODEL / "20260101-000000-0000"
    for stage in ("load", "tune"):
        (run / stage).mkdir(parents=True)
    chance = np.random.default_rng(0).lognormal(0, 0.1, (30, 1))
    rows = {size: np.array([[0.2 * size, max(13.0, 0.9 * size), 0.1 * size]]) for size in (1, 2, 4, 8, 16)}
    points = tuple(Point.of(size, row * chance) for size, row in rows.items())
    service = Service(points=points, batch_ms=1.0, request_ms=0.1, http_ms=1.0, shared=True)
    result = {
        "slo": {"percentile": 99.0, "ms": SLO_MS, "origin": "config"},
        "accelerator": {"kind": "emulated", "name": "made by hand", "time_scale": 1.0},
        "machine": {"processor": "none", "cores": 1, "gpus": []},
        "chosen": CHOSEN | {"p50_ms": 30.0, "p99_ms": 50.0},
        "overheads": {"batch_ms": 1.0, "request_ms": 0.1, "http_ms": 1.0},
        "service": asdict(service),
    }
    (run / "tune" / "result.json").write_text(json.dumps(result))
    config, facts = read_config([f"model={MODEL}"]).config, {"weights": {"kind": "random", "detail": "none"}}
    loaded = seal(run / "load", model=MODEL, config=config.load, inputs=[], facts=facts, started=time.monotonic())
    seal(run / "tune", model=MODEL, config=config.tune, inputs=[loaded], facts={}, started=time.monotonic())


def _day(artifacts: Path, name: str, words: list[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "marline.plan", f"model={MODEL}", f"artifacts={artifacts}", "plan.trace=diurnal", *words]
    before, began = set(artifacts.glob("*/*/plan")), time.perf_counter()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # what is started inherits it
    try:
        subprocess.run(command, cwd=project_root(), check=True, capture_output=True, timeout=600)
    finally:
        os.sched_setaffinity(0, cores)
    took_s = time.perf_counter() - began
    (out,) = set(artifacts.glob("*/*/plan")) - before
    found = json.loads((out / "plan.json").read_text())
    peak, proof = found["peak"], found["proof"]
    p50 = abs(proof["level"]["p50_ms"] / proof["played"]["p50_ms"] - 1)
    said = f"{peak['planned']} replicas (fewest {peak['fewest']}); {proof['requests']:,} requests in {proof['seconds']:g} s"
    told = f"p99 {proof['played']['p99_ms']:.1f} ms, level {proof['level']['p99_ms']:.1f} ms; p50 is {100 * p50:.1f} % off"
    off = 100 * abs(proof["off"])
    return [
        figure(f"a day of {name}, planned", took_s, "s", MOST_S, took_s <= MOST_S, 1, said),
        figure(f"its level against its proof: {name}", off, "%", CLOSE, off <= CLOSE, proof["requests"], told),
    ]
