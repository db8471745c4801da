"""One trial: a serving configuration under one open-loop load, with everything needed to believe it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from marline.core import LoadtestConfig, TuneConfig
from marline.deploy import Server
from marline.loadtest import Load, Measurement, Target, invalid_reason, measure, percentile, slo_met
from marline.tune._batches import Batch, read_batches
from marline.tune._setting import Setting

DRAIN_S, LEAST_TIMEOUT_S = 30.0, 2.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What one load test showed; latencies count from the scheduled start, lost requests are infinite."""

    setting: Setting
    purpose: str  # search | confirm
    offered_rps: float
    seconds: float
    valid: bool
    invalid_reason: str | None
    p50_ms: float
    p95_ms: float
    p99_ms: float
    at_percentile_ms: float
    samples: int
    errors: int
    slo_met: bool | None
    mean_batch: float | None
    service_p99_ms: float
    lag_p99_ms: float
    samples_file: str
    error_classes: Mapping[str, int] = field(default_factory=dict)  # how many requests had no 200, by what came in its place
    wasted: int | None = None  # computed for nobody: their clients had given up; None where the handler does not say

    def within(self, slo_ms: float) -> bool:
        """Whether this trial speaks for its rate: valid, and what was seen is within the objective."""
        return self.valid and self.at_percentile_ms <= slo_ms

    def as_json(self) -> dict[str, Any]:
        """The report's TRIAL; a percentile beyond the last answer is null."""
        return {
            "batch_size": self.setting.batch_size,
            "max_batch_delay_ms": self.setting.max_batch_delay_ms,
            "workers": self.setting.workers,
            "rps": round(self.offered_rps, 2),
            "p50_ms": _finite(self.p50_ms),
            "p95_ms": _finite(self.p95_ms),
            "p99_ms": _finite(self.p99_ms),
            "samples": self.samples,
            "slo_met": self.slo_met,
            "valid": self.valid,
            "invalid_reason": self.invalid_reason,
            "seconds": round(self.seconds, 2),
            "errors": self.errors,
            "error_classes": dict(self.error_classes),
            "wasted": self.wasted,
            "mean_batch": round(self.mean_batch, 2) if self.mean_batch is not None else None,
            "offered_rps": round(self.offered_rps, 2),
            "purpose": self.purpose,
            "service_p99_ms": _finite(self.service_p99_ms),
            "lag_p99_ms": _finite(self.lag_p99_ms),
            "samples_file": self.samples_file,
        }


@dataclass(frozen=True, slots=True)
class Bench:
    """What every trial of one tuning run shares."""

    server: Server
    model: str
    payloads: Sequence[Path]
    tune: TuneConfig
    loadtest: LoadtestConfig
    slo_ms: float
    out: Path
    logs: Path
    reported: bool = True  # whether the handler reports its batches


def run_trial(bench: Bench, setting: Setting, rps: float, number: int, purpose: str) -> Trial:
    """Send load at `rps` to the model as it is loaded now, judge it, keep the raw samples in `samples/NNN.npz`."""
    client = bench.server.client
    load = Load(
        rps=rps,
        seconds=bench.tune.confirm_s if purpose == "confirm" else bench.tune.trial_s,
        warmup_s=bench.loadtest.warmup_s,
        arrivals=bench.loadtest.arrivals,
        seed=bench.loadtest.seed + number,
        timeout_s=max(LEAST_TIMEOUT_S, 3 * bench.slo_ms / 1e3),  # the tail must be seen well beyond the objective
    )
    before = client.describe(bench.model)
    began = time.monotonic()
    url, token_file = f"{client.inference_url}/predictions/{bench.model}", bench.server.token_file
    target = Target(url=url, token=client.tokens.inference, token_file=token_file)
    measured = measure(target, bench.payloads, load, bench.logs / f"trial-{number:03d}")
    _drain(bench)
    after = client.describe(bench.model)
    batches = [batch for batch in read_batches(bench.server.batches) if batch.ended_s >= began]
    reason = invalid_reason(measured, load, bench.slo_ms) or _server_reason(
        before, after, measured, batches if bench.reported else None
    )
    file = bench.out / "samples" / f"{number:03d}.npz"
    file.parent.mkdir(exist_ok=True)
    measured.save(file)
    return _trial(bench, setting, purpose, load, measured, batches, reason, file)


def _trial(
    bench: Bench,
    setting: Setting,
    purpose: str,
    load: Load,
    measured: Measurement,
    batches: Sequence[Batch],
    reason: str | None,
    file: Path,
) -> Trial:
    latencies = measured.latencies_ms
    sizes = [batch.size for batch in batches if batch.size]
    return Trial(
        setting=setting,
        purpose=purpose,
        offered_rps=measured.offered_rps,  # what the schedule drew, not what was wished for
        seconds=load.seconds,
        valid=reason is None,
        invalid_reason=reason,
        p50_ms=percentile(latencies, 50),
        p95_ms=percentile(latencies, 95),
        p99_ms=percentile(latencies, 99),
        at_percentile_ms=percentile(latencies, bench.tune.percentile),
        samples=len(latencies),
        errors=int(np.sum(measured.status != 200)),
        slo_met=slo_met(latencies, bench.slo_ms, bench.tune.percentile, bench.tune.confidence) if reason is None else None,
        mean_batch=float(np.mean(sizes)) if sizes else None,
        service_p99_ms=percentile(measured.service_ms, 99),
        lag_p99_ms=percentile(measured.lag_ms, 99),
        samples_file=str(file.relative_to(bench.out)),
        error_classes=measured.errors,
        wasted=_wasted(measured, batches) if bench.reported else None,
    )


def _wasted(measured: Measurement, batches: Sequence[Batch]) -> int:
    """Requests that were computed and answered nobody, at least: those of the warm-up are all taken to be answered."""
    answered = measured.total - int(np.sum(measured.status != 200))
    return max(0, sum(batch.size for batch in batches) - answered)


def _server_reason(before: Any, after: Any, measured: Measurement, batches: Sequence[Batch] | None) -> str | None:
    """Why a trial is invalid as seen from the server's side, or None; `batches` is None where they are not reported."""
    if after is None or before is None or after.workers != before.workers:
        return "a worker was replaced during the trial"
    if batches is None:
        return None
    served, answered = sum(batch.size for batch in batches), int(np.sum(measured.status == 200))
    if not answered <= served <= measured.total:
        return f"the worker logged {served} requests; the client sent {measured.total} and counts {answered} answers"
    return None


def _drain(bench: Bench) -> None:
    """Wait until the server is idle: a request that was given up is still computed, and must not slow the next trial."""
    deadline = time.monotonic() + DRAIN_S
    quiet_s, still_since, seen = max(0.3, 2 * bench.slo_ms / 1e3), time.monotonic(), -1
    while time.monotonic() < deadline:
        status, done = bench.server.client.describe(bench.model), len(read_batches(bench.server.batches))
        if done != seen or (status is not None and status.pending):
            still_since, seen = time.monotonic(), done
        elif time.monotonic() - still_since > quiet_s:
            return
        time.sleep(0.1)


def _finite(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
