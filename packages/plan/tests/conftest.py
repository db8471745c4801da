"""A replica made by hand, and the folders of a tuning that found it."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marline.core import Config, Manifest, read_config, seal
from marline.plan import Twin
from marline.tune import Point, Service, Setting

SLO_MS = 150.0
CHOSEN = {"batch_size": 8, "max_batch_delay_ms": 5, "workers": 1, "rps": 150.0, "slo_met": True, "samples": 6000}


def service(*, jitter: float = 0.0, shared: bool = False) -> Service:
    chance = np.random.default_rng(0).lognormal(0, jitter, (30, 1))
    rows = {1: (1.0, 18.0, 1.0), 4: (3.0, 25.0, 1.0), 8: (5.0, 34.0, 1.0)}
    points = tuple(Point.of(size, np.array([row]) * chance) for size, row in rows.items())
    return Service(points=points, batch_ms=1.0, request_ms=0.1, http_ms=1.0, shared=shared, queue=60)


def twin(balancing: str = "round_robin", setting: Setting | None = None, **told: Any) -> Twin:
    return Twin(
        service=service(**told), setting=setting or Setting(8, 5, 1), slo_ms=SLO_MS, percentile=99.0, balancing=balancing
    )


def result(**changes: Any) -> dict[str, Any]:
    """As much of tune's result.json as a plan reads."""
    return {
        "slo": {"percentile": 99.0, "ms": SLO_MS, "origin": "config"},
        "accelerator": {"kind": "cpu", "name": "Intel Xeon", "time_scale": 1.0},
        "machine": {"processor": "Intel Xeon", "cores": 2, "gpus": []},
        "chosen": CHOSEN | {"p50_ms": 47.0, "p95_ms": 70.0, "p99_ms": 80.0},
        "overheads": {"batch_ms": 1.0, "request_ms": 0.1, "http_ms": 1.0},
        "service": json.loads(json.dumps(asdict(service(jitter=0.05)))),
    } | changes


def config(*words: str) -> Config:
    return read_config(["model=digits_cnn", *words]).config


@pytest.fixture(scope="session")
def make_twin() -> Callable[..., Twin]:
    return twin


@pytest.fixture
def manifests(tmp_path: Path) -> Callable[..., tuple[Manifest, Manifest]]:
    """The manifests of tune and load, of a run in the test's folder."""

    def make(weights: str = "published", **changes: Any) -> tuple[Manifest, Manifest]:
        run = tmp_path / "artifacts" / "digits_cnn" / "20260302-041107-9c1e"
        for stage in ("load", "tune"):
            (run / stage).mkdir(parents=True)
        facts = {"weights": {"kind": weights, "detail": "here"}}
        loaded = seal(run / "load", model="digits_cnn", config=config().load, inputs=[], facts=facts, started=time.monotonic())
        (run / "tune" / "result.json").write_text(json.dumps(result(**changes)))
        tuned = seal(
            run / "tune", model="digits_cnn", config=config().tune, inputs=[loaded], facts={}, started=time.monotonic()
        )
        return tuned, loaded

    return make
