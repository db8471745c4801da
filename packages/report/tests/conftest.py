"""A finished run with plausible figures: ResNet-50 on two cores, and what may be told differently about it."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marline.core import STAGES, Manifest, ReportConfig, Section, seal
from marline.report import StageTime, report

RUN = "20260302-041107-9c1e"
SLO_MS = 183.0
ITEM_MS = {1: 36.6, 2: 32.9, 4: 29.8, 8: 28.7}
Change = Mapping[str, Any]


class Settings(Section):
    """Stands for the section a stage was told."""

    seed: int = 0  # of random weights
    confidence: float = 0.95
    arrivals: str = "poisson"


def config_of(batch: int, delay: int, rps: float, p99: float | None, samples: int, *, met: bool | None) -> dict[str, Any]:
    return {
        "batch_size": batch,
        "max_batch_delay_ms": delay,
        "workers": 1,
        "rps": rps,
        "p50_ms": None if p99 is None else round(0.38 * p99, 2),
        "p95_ms": None if p99 is None else round(0.77 * p99, 2),
        "p99_ms": p99,
        "samples": samples,
        "slo_met": met,
    }


def trial_of(
    place: int, batch: int, delay: int, rate: float, *, seconds: float = 10.0, purpose: str = "search"
) -> dict[str, Any]:
    """One trial of a queue whose waiting grows as 1 / (1 - load)."""
    busy = rate * ITEM_MS[batch] / 1000
    lost = busy > 0.985
    p99 = None if lost else round(min(delay, 12) + ITEM_MS[batch] * batch**0.55 + 22.0 * busy / (1 - busy), 2)
    met = None if p99 is not None and p99 <= SLO_MS and rate * seconds < 299 else p99 is not None and p99 <= SLO_MS
    return config_of(batch, delay, rate, p99, int(rate * seconds), met=met) | {
        "valid": True,
        "invalid_reason": None,
        "seconds": seconds,
        "errors": int(0.55 * rate * seconds) if lost else 0,
        "mean_batch": round(min(batch, 1 + busy**3 * (batch - 1)), 2),
        "offered_rps": rate,
        "purpose": purpose,
        "service_p99_ms": p99,
        "lag_p99_ms": 0.62,
        "samples_file": f"samples/{place:03}.npz",
    }


def trials() -> list[dict[str, Any]]:
    pairs = [(1, 100), (2, 2), (2, 10), (4, 2), (4, 10), (8, 2), (8, 10)]
    steps = [
        (batch, delay, round(share * 1000 / ITEM_MS[batch], 1))
        for batch, delay in pairs
        for share in (0.55, 0.78, 0.86 + batch / 50)
    ]
    found = [trial_of(place, *step) for place, step in enumerate(steps, 1)]
    found.append(trial_of(22, 1, 100, 20.4, seconds=40, purpose="confirm") | config_of(1, 100, 20.4, 124.35, 816, met=True))
    found.append(trial_of(23, 4, 2, 27.2, seconds=40, purpose="confirm") | config_of(4, 2, 27.2, 166.54, 1088, met=True))
    found[7] |= {
        "valid": False,
        "invalid_reason": "send lag p99 11.8 ms is over 3.7 ms: the generator was disturbed",
        "slo_met": None,
    }
    return found


ANSWER = (
    "batch_size=4 max_batch_delay_ms=2 workers=1 → 27.2 req/s at p99 ≤ 183 ms (95 % confidence, 23 load tests, 7 min), "
    "1.33 × TorchServe's default (A/A noise 4 %)."
)
SIZES, DELAYS_MS = (2, 4, 8), (2, 10, 100)


def place_of(batch: int, delay: int) -> dict[str, int]:
    return {"batch_size": batch, "max_batch_delay_ms": delay, "workers": 1}


def predictions() -> list[dict[str, Any]]:
    """Rates within the SLO of every pair; what waits for 100 ms and for a large batch too has none."""
    found = []
    for batch, delay in [(1, 100), *((batch, delay) for batch in SIZES for delay in DELAYS_MS)]:
        limit = SLO_MS - 1.6 * ITEM_MS[batch] * batch**0.6 - (delay if batch > 1 else 0)
        rps = round(max(0.0, min(30.0, 0.31 * limit)), 1)
        found.append(place_of(batch, delay) | {"rps": rps, "p99_ms": 180.1 if rps else None, "mean_batch": 1 + batch / 2})
    return found


def compared() -> list[dict[str, Any]]:
    """The twin beside two trials, one of which lost more than a p99 allows."""
    near = {"p50_ms": 61.2, "p99_ms": 158.4, "mean_batch": 2.31}
    seen = {"p50_ms": 63.3, "p99_ms": 166.5, "mean_batch": 2.44}
    return [
        place_of(4, 2) | {"offered_rps": 27.2, "predicted": near, "measured": seen},
        place_of(1, 100)
        | {
            "offered_rps": 28.1,
            "predicted": {"p50_ms": 2210.0, "p99_ms": 4180.0, "mean_batch": 1.0},
            "measured": {"p50_ms": 2390.0, "p99_ms": None, "mean_batch": 1.0},
        },
    ]


def diagnoses() -> list[dict[str, Any]]:
    told = {
        (4, 2): ("compute-bound", "batches of 2.4 of 4, workers 88 % busy; 63.9 ms of the 72 ms of a batch are inference"),
        (1, 100): ("compute-bound", "batches of 1.0 of 1, workers 84 % busy; 33 ms of the 36.6 ms of a batch are inference"),
        (8, 100): ("delay-bound", "batches of 2.2 of 8 left after the 100 ms delay: a shorter delay"),
        (4, 100): ("delay-bound", "batches of 2.0 of 4 left after the 100 ms delay: a shorter delay"),
    }
    return [place_of(*pair) | {"kind": kind, "words": words} for pair, (kind, words) in told.items()]


def values() -> list[dict[str, Any]]:
    rows = [
        ("batchSize", 1, 4, "tuned"),
        ("maxBatchDelay", 100, 2, "tuned; ms"),
        ("minWorkers, maxWorkers", 1, 1, "tuned"),
        ("jobQueueSize", 1000, 8, "a batch for each worker, and one that gathers"),
        ("responseTimeout", 60, 10, "3 × the objective, at least 10 s, for one batch; s"),
        ("clientTimeoutInMills", 0, 10_000, "3 × the objective, at least 10 s: nobody waits for longer; ms, 0 is never"),
    ]
    return [{"key": key, "was": was, "now": now, "why": why} for key, was, now, why in rows]


def tune_result() -> dict[str, Any]:
    return {
        "slo": {"percentile": 99, "ms": SLO_MS, "origin": "auto"},
        "accelerator": {"kind": "cpu", "name": "Intel Xeon Platinum 8370C", "time_scale": 1.0},
        "curve": [
            {
                "batch": batch,
                "samples": 30,
                "p50_ms": round(batch * item, 2),
                "p95_ms": round(batch * item * 1.07, 2),
                "pre_ms": round(3.4 * batch, 2),
                "inference_ms": round(batch * (item - 3.6), 2),
                "post_ms": round(0.2 * batch, 2),
            }
            for batch, item in ITEM_MS.items()
        ],
        "default": config_of(1, 100, 20.4, 124.35, 816, met=True),
        "chosen": config_of(4, 2, 27.2, 166.54, 1088, met=True),
        "runner_up": config_of(8, 2, 25.9, 170.2, 1036, met=True),
        "gain": 1.333,
        "noise": {"p50": 1.018, "p99": 1.072, "rps_floor": 0.041, "trials": [1, 2]},
        "strategy": "predict",
        "objective": {"name": "rate", "at_rps": None},
        "answer": ANSWER,
        "load_tests": 23,
        "load_seconds": 290.0,
        "predictions": predictions(),
        "compared": compared(),
        "diagnoses": diagnoses(),
        "values": values(),
        "trials": trials(),
        "warnings": ["trial 8 was disturbed and is not counted; the machine was not idle"],
        "machine": {
            "processor": "Intel Xeon Platinum 8370C",
            "cores": 2,
            "memory_gib": 8,
            "gpus": [],
            "system": "Linux x86_64",
            "python": "3.11.2",
        },
        "tuned": {"archive": "tuned/resnet50.mar", "sha256": "5f" * 32},
        "seed": 0,
        "profile": "standard",
        "seconds": 431.0,
    }


FACTS: dict[str, dict[str, Any]] = {
    "load": {
        "source": "torchvision:resnet50",
        "task": "image-classification",
        "weights": {"kind": "published", "detail": "IMAGENET1K_V2"},
        "parameters": 25557032,
    },
    "wrap": {},
    "export": {
        "method": "script",
        "parity": [
            {"case": f"batch {batch}", "batch": batch, "stage": stage, "max_abs": 1.9e-6 * math.sqrt(batch), "max_rel": 4.1e-6}
            for stage in ("exported", "frozen", "reloaded", "C++")
            for batch in (1, 2, 3, 8, 17)
        ],
        "reason": "scripting kept all control flow",
        "skipped": [],
        "suspects": [],
        "warnings": [],
        "input": {"shape": [3, 224, 224], "dtype": "float32"},
        "golden": 6,
        "atol": 1e-4,
        "rtol": 1e-3,
    },
    "archive": {"archive": "resnet50.mar", "sha256": "a3" * 32, "size_bytes": 102_730_112},
    "deploy": {
        "ready_s": 7.1,
        "golden": 6,
        "server": {"torchserve": "0.12.0", "java": "25.0.1"},
        "archive_sha256": "a3" * 32,
    },
}
SECONDS = {"load": 3.1, "wrap": 1.8, "export": 21.4, "archive": 9.9, "deploy": 18.2, "tune": 433.7}
CACHED = ("load", "wrap", "export")


def write_rows(out: Path, trials: Sequence[dict[str, Any]]) -> None:
    """Raw rows that fit what is told of each trial: latencies between its p50 and p99, as many lost as it had errors."""
    (out / "samples").mkdir()
    for trial in trials:
        count, seconds = trial["samples"], trial["seconds"]
        due_s = np.sort(np.random.default_rng(count).uniform(0, seconds, count))
        tail_ms = trial["p99_ms"] or 4 * SLO_MS
        shape = np.random.default_rng(count + 1).permutation(np.linspace(0, 1, count))
        late_ms = np.where(shape > 0.98, tail_ms, tail_ms * (0.2 + 0.7 * shape))
        status = np.where(np.arange(count) < trial["errors"], 503, 200).astype(np.int16)
        rows = {
            "scheduled_s": due_s,
            "sent_s": due_s + 0.0004,
            "finished_s": due_s + late_ms / 1e3,
            "status": status,
            "error": np.where(status == 200, "", "HTTP 503 overload"),
            "payload": np.zeros(count, np.int32),
            "size_bytes": np.full(count, 90),
            "in_flight": np.zeros((1, 2)),
            "mean_in_flight": count / seconds * late_ms.mean() / 1e3,
            "little_in_flight": count / seconds * late_ms.mean() / 1e3,
            "generator_cpu": 0.12,
            "offered_rps": count / seconds,
            "answered_rps": float((status == 200).sum()) / seconds,
            "seconds": seconds,
            "total": count + 25,
        }
        np.savez_compressed(out / trial["samples_file"], **rows)


def manifests(run: Path, model: str, result: Change, facts: Mapping[str, Change]) -> list[Manifest]:
    """Leave behind what the stages before the report leave behind."""
    made: list[Manifest] = []
    for stage in STAGES[:-1]:
        out = run / stage
        out.mkdir(parents=True)
        if stage == "tune":
            told = tune_result() | dict(result)
            (out / "result.json").write_text(json.dumps(told))
            write_rows(out, told["trials"])
        facts_of = FACTS.get(stage, {}) | dict(facts.get(stage, {}))
        made.append(seal(out, model=model, config=Settings(), inputs=made[-1:], facts=facts_of, started=time.monotonic()))
    return made


def stage_times(names: Sequence[str]) -> list[StageTime]:
    return [
        StageTime(name, SECONDS[name], cached=name in CACHED, run="20260227-170256-41d0" if name in CACHED else RUN)
        for name in names
    ]


TOLD: dict[str, Any] = {"headroom": 0.3, "currency": "USD", "fail_if": None, "baseline": "accepted", "undecided": "pass"}
Make = Callable[..., Path]


def maker(folder: Path) -> Make:
    """Report on the example run in a folder of models, told differently where a test says so; gives the report's folder."""

    def build(
        model: str = "resnet50",
        target_rps: float | None = 100.0,
        price: float | None = None,
        facts: Mapping[str, Change] | None = None,
        name: str = RUN,
        told: Change | None = None,
        **result: Any,
    ) -> Path:
        run = folder / model / name
        before = manifests(run, model, result, facts or {})
        out = run / "report"
        out.mkdir()
        config = ReportConfig(**TOLD | {"target_rps": target_rps, "price_per_hour": price} | dict(told or {}))
        report(model, config, before, stage_times(STAGES[:-1]), name, out)
        return out

    return build


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """The same, in the folder of the test."""
    return maker(tmp_path)


@pytest.fixture(scope="session")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the example run as it is; to be read by many and changed by none."""
    return maker(tmp_path_factory.mktemp("usual"))()


@pytest.fixture(scope="session")
def make_in() -> Callable[[Path], Make]:
    """The same, in any folder: for what many tests share."""
    return maker
