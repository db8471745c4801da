"""Two servers that are none: one is a formula, the other the twin itself, played with figures that the tuner does not know."""

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from marline.archive import Serving, to_yaml
from marline.core import read_config
from marline.deploy import Server
from marline.loadtest import Load, Measurement, arrival_times
from marline.tune import Point, Service, Setting, Trial, simulate
from marline.tune._batches import Batch
from marline.tune._choose import Chooser
from marline.tune._journal import Journal, Raw
from marline.tune._predict import Forecaster
from marline.tune._runner import Runner
from marline.tune._search import default_of, grid
from marline.tune._trial import Bench
from marline.tune._twin_loop import serve

TRIAL = Trial(
    setting=Setting(1, 100, 1),
    purpose="search",
    offered_rps=10.0,
    seconds=3.0,
    valid=True,
    invalid_reason=None,
    p50_ms=5.0,
    p95_ms=9.0,
    p99_ms=10.0,
    at_percentile_ms=10.0,
    samples=30,
    errors=0,
    slo_met=None,
    mean_batch=1.0,
    service_p99_ms=9.5,
    lag_p99_ms=0.4,
    samples_file="samples/001.npz",
)


@dataclass
class Formula:
    """A tail of `idle_ms / (1 - rate / capacity)`, infinite at the capacity and beyond; keeps every trial."""

    capacity: Callable[[Setting], float]
    idle_ms: float = 10.0
    invalid_from_rps: float = float("inf")
    trials: list[Trial] = field(default_factory=list)

    def run(self, setting: Setting, rps: float, purpose: str = "search") -> Trial:
        load = rps / self.capacity(setting)
        tail = self.idle_ms / (1 - load) if load < 1 else float("inf")
        valid = rps < self.invalid_from_rps
        trial = replace(
            TRIAL,
            setting=setting,
            purpose=purpose,
            offered_rps=rps,
            at_percentile_ms=tail,
            p99_ms=tail,
            valid=valid,
            invalid_reason=None if valid else "requests were sent late",
        )
        self.trials.append(trial)
        return trial


def logged(service: Service, setting: Setting, load: Load, luck: int) -> tuple[Batch, ...]:
    """The batches of the same, as their worker logs them."""
    due_ms, table_ms = arrival_times(load) * 1e3, service.table_ms()
    draws = np.random.default_rng(luck).integers(table_ms.shape[1], size=due_ms.size)
    kind, overheads = (setting.batch_size, setting.max_batch_delay_ms, setting.workers), (service.batch_ms, service.request_ms)
    _, batch_of, _ = serve(due_ms, table_ms, draws, *kind, service.shared, *overheads, service.queue, load.timeout_s * 1e3)
    sizes = np.bincount(batch_of[batch_of >= 0])
    return tuple(Batch(0.0, int(size), *table_ms[size, row].tolist()) for size, row in zip(sizes, draws, strict=False))


def served(service: Service, setting: Setting, load: Load, luck: int) -> Measurement:
    """What a load test of a simulated server shows; a second run of the same load has other luck with the batches."""
    due_s = arrival_times(load)
    latencies_ms = simulate(service, setting, due_s, expiry_ms=load.timeout_s * 1e3, seed=luck)
    judged = due_s >= load.warmup_s
    due_s, latencies_ms = due_s[judged], latencies_ms[judged]
    ok = np.isfinite(latencies_ms)
    finished_s = due_s + np.where(ok, latencies_ms, load.timeout_s * 1e3) / 1e3
    return Measurement(
        scheduled_s=due_s,
        sent_s=due_s,
        finished_s=finished_s,
        status=np.where(ok, 200, 0).astype(np.int16),
        error=np.where(ok, "", "Timeout"),
        payload=np.zeros(due_s.size, np.int32),
        size_bytes=np.ones(due_s.size, np.int64),
        in_flight=np.zeros((0, 2)),
        mean_in_flight=0.0,
        little_in_flight=0.0,
        generator_cpu=0.1,
        offered_rps=due_s.size / load.seconds,
        answered_rps=float(ok.sum()) / load.seconds,
        seconds=load.seconds,
        total=judged.size,
    )


@dataclass
class Simulated(Runner):
    """Runs every trial on a simulated server; `asked` counts those that were measured and not taken from the journal."""

    real: Callable[[str], Service] = field(kw_only=True)  # by the purpose of the trial
    broken: Callable[[int], str | None] = field(default=lambda _: None, kw_only=True)  # why the trial of a number is invalid
    too_fast_rps: float = field(default=float("inf"), kw_only=True)  # where the sender cannot follow
    memory_mb: float = field(default=100.0, kw_only=True)
    asked: list[tuple[Setting, float]] = field(default_factory=list, kw_only=True)
    purpose: str = field(default="", kw_only=True)

    def run(self, archive: Path, setting: Setting, rps: float, purpose: str) -> Trial:
        self.purpose = purpose
        return super().run(archive, setting, rps, purpose)

    def _measure(self, archive: Path, setting: Setting, load: Load, number: int) -> Raw:
        assert archive.is_file()
        self.asked.append((setting, load.rps))
        real, luck = self.real(self.purpose), 100 + len(self.asked)
        return Raw(
            measured=served(real, setting, load, luck),
            batches=logged(real, setting, load, luck),
            reason="requests were sent late" if load.rps > self.too_fast_rps else self.broken(number),
            memory_mb=self.memory_mb * setting.batch_size,
            gpu_share=None,
            gpu=[],
            run=self.journal.run,
            took_s=load.seconds,
        )


def linear(fixed_ms: float, item_ms: float, largest: int = 32, jitter: float = 0.05) -> tuple[Point, ...]:
    """A service curve of a fixed part and one per item, with some jitter."""
    draw, sizes = np.random.default_rng(1), [1 << power for power in range(largest.bit_length()) if 1 << power <= largest]
    return tuple(
        Point.of(size, [(0.2, ms, 0.1) for ms in (fixed_ms + item_ms * size) * draw.lognormal(0, jitter, 40)]) for size in sizes
    )


@pytest.fixture
def trial() -> Trial:
    return TRIAL


@pytest.fixture
def formula() -> type[Formula]:
    return Formula


@pytest.fixture
def curve() -> list[Point]:
    return [Point(b, 30, 10.0 + b, 11.0 + b, 0.5, 9.0 + b, 0.5) for b in (1, 2, 4, 8)]


@pytest.fixture
def service() -> Service:
    """8 ms a batch and 1 ms an item, and what a server adds to that."""
    return Service(points=linear(8.0, 1.0), batch_ms=2.0, request_ms=0.2, http_ms=1.0, shared=True)


@pytest.fixture
def simulated(tmp_path: Path) -> Callable[..., Simulated]:
    def make(real: Service | Callable[[str], Service], *words: str, run: str = "now", **more: Any) -> Simulated:
        config = read_config(["model=digits_cnn", *words]).config
        out = tmp_path / run / "tune"
        out.mkdir(parents=True, exist_ok=True)
        bench = Bench(cast("Server", None), config.model, [], config.tune, config.loadtest, 100.0, out, tmp_path / "logs")
        journal = Journal.of(tmp_path, {"words": words}, run, fresh=False, keep=10)
        of = real if callable(real) else lambda _: real
        return Simulated(bench, journal, 10, real=of, **more)

    return make


@pytest.fixture
def shown() -> Callable[[Sequence[Trial]], list[str]]:
    return lambda trials: [f"{trial.purpose} {trial.setting.batch_size}" for trial in trials]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    serving = Serving(
        batch_size=1,
        max_batch_delay_ms=100,
        workers=1,
        response_timeout_s=60,
        startup_timeout_s=120,
        job_queue_size=1000,
        device="cpu",
    )
    file = tmp_path / "digits_cnn.mar"
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("model-config.yaml", to_yaml(serving))
        made.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"configFile": "model-config.yaml"}}))
    return file


@pytest.fixture
def choose(simulated: Any, archive: Path, service: Service) -> Callable[..., tuple[Any, Any]]:
    """Tune a simulated server; the tuner believes `service`, the server is another."""

    def run(real: Any, *words: str, **more: Any) -> tuple[Any, Any]:
        runner = simulated(real, "tune.max_batch_delays_ms=[2,10]", *words, **more)
        told = runner.bench.tune
        predicts = told.strategy == "predict"
        settings = [default_of(told), *grid(told, told.batch_sizes)]
        chooser = Chooser(runner, archive, Forecaster(service, settings, 100.0, 99, trusted=predicts))
        return chooser.choose(), chooser

    return run
