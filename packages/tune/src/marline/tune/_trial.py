"""One trial: a serving configuration under one open-loop load, with everything needed to believe it."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from marline.core import LoadtestConfig, TuneConfig, located, progress, seen_gpus
from marline.deploy import Server, Status
from marline.loadtest import Load, Measurement, Target, invalid_reason, measure, percentile, samples_needed, verdict
from marline.tune._batches import Batch, read_batches
from marline.tune._journal import Raw
from marline.tune._nvml import gpu_use
from marline.tune._setting import Setting

DRAIN_S, LEAST_TIMEOUT_S = 30.0, 2.0
ENOUGH, OVER = 300, 3  # requests of a trial, and how many of a confirmation may miss the objective and it still proves it
LONGER, LONGEST = 2.0, 3.0  # times as long as configured: a trial, and a confirmation, at a low rate
REPEATED = ("rps", "seconds", "warmup_s", "arrivals", "seed")  # of a load: what the same load elsewhere must share
OFF = 0.05  # of the wished rate: what a recording's first seconds may offer more or less


@dataclass(frozen=True, slots=True)
class Trial:
    """What one load test showed; latencies count from the scheduled start, lost requests are infinite."""

    setting: Setting
    purpose: str  # noise | search | confirm | baseline
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
    memory_mb: float | None = None  # of the largest worker after the load
    limit: str | None = None  # the limit beside latency that it broke, in words
    too_large: bool = False  # whether that was one of memory, which a lower rate would break too
    load_s: float = 0.0  # with the warm-up
    took_s: float = 0.0  # with everything: registering, load, draining
    run: str | None = None  # the interrupted run that measured it; None: this one
    load: Mapping[str, Any] = field(default_factory=dict)  # what was sent, so that another run can send the same

    def within(self, slo_ms: float) -> bool:
        """Whether this trial speaks for its rate: valid, and what was seen is within the objective and every limit."""
        return self.valid and self.at_percentile_ms <= slo_ms and self.limit is None

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
            "memory_mb": round(self.memory_mb) if self.memory_mb is not None else None,
            "limit": self.limit,
            "run": self.run,
            "load": dict(self.load),
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
    on_gpu: bool = False  # whether the model runs on a GPU, whose memory then counts


def load_of(bench: Bench, rps: float, purpose: str, number: int) -> Load:
    """What a trial sends. Each has arrivals of its own, but for the pair that shows the noise: the same load twice.

    At a low rate it lasts longer than configured, up to a limit, so that it has the requests that a verdict takes.

    That comes first, and is warmed up for longer: of two that began at once, the first had twice the latency, because Java was
    still compiling what serves a request.
    """
    tune, warmup_s = bench.tune, bench.loadtest.warmup_s
    told_s, enough, longer = tune.trial_s, ENOUGH, LONGER
    if purpose == "confirm":
        told_s, enough, longer = tune.confirm_s, samples_needed(tune.percentile, tune.confidence, OVER), LONGEST
    return Load(
        rps=rps,
        seconds=max(told_s, min(longer * told_s, enough / rps)),
        warmup_s=max(warmup_s, tune.trial_s) if purpose == "noise" else warmup_s,
        arrivals=bench.loadtest.arrivals,
        replay=located(bench.loadtest.replay) if bench.loadtest.replay is not None else None,
        seed=bench.loadtest.seed + (0 if purpose == "noise" else number),
        timeout_s=max(LEAST_TIMEOUT_S, 3 * bench.slo_ms / 1e3),  # the tail must be seen well beyond the objective
    )


def run_trial(bench: Bench, load: Load, number: int, run: str) -> Raw:
    """Send the load to the model as it is served now, and wait until all is done that it left."""
    client, began = bench.server.client, time.monotonic()
    before = client.describe(bench.model)
    url, token_file = f"{client.inference_url}/predictions/{bench.model}", bench.server.token_file
    target = Target(url=url, token=client.tokens.inference, token_file=token_file)
    with gpu_use(f"trial {number}") as gpu:
        measured = measure(
            target,
            bench.payloads,
            load,
            bench.logs / f"trial-{number:03d}",
            processes=bench.loadtest.processes,
            expect_workers=bench.loadtest.expect_workers,
            said=partial(progress, 0.5),
        )
    idle = _drain(bench)
    after = client.describe(bench.model)
    batches = tuple(batch for batch in read_batches(bench.server.batches) if batch.ended_s >= began)
    reason = (
        invalid_reason(measured, load, bench.slo_ms, bench.tune.percentile)
        or _uneven(measured, load)
        or _server_reason(before, after, measured, batches if bench.reported else None)
    )
    if reason is None and not idle:
        reason = f"the server was not idle {DRAIN_S:.0f} s after the load"
    return Raw(
        measured=measured,
        batches=batches,
        reason=reason,
        memory_mb=_memory_mb(after),
        gpu_share=_gpu_share() if bench.on_gpu else None,
        gpu=gpu,
        run=run,
        idle=idle,
    )


def judge(bench: Bench, setting: Setting, load: Load, purpose: str, raw: Raw, number: int, run: str) -> Trial:
    """The trial that was measured, in this run or in one that was interrupted; its raw rows go to `samples/NNN.npz`."""
    file = bench.out / "samples" / f"{number:03d}.npz"
    file.parent.mkdir(exist_ok=True)
    raw.measured.save(file)
    measured, latencies = raw.measured, raw.measured.latencies_ms
    sizes = [batch.size for batch in raw.batches if batch.size]
    limit, too_large = broken_limit(bench.tune, raw)
    judged = verdict(latencies, bench.slo_ms, bench.tune.percentile, bench.tune.confidence, load.seconds)
    return Trial(
        setting=setting,
        purpose=purpose,
        offered_rps=measured.offered_rps,  # what the schedule drew, not what was wished for
        seconds=load.seconds,
        valid=raw.reason is None,
        invalid_reason=raw.reason,
        p50_ms=percentile(latencies, 50),
        p95_ms=percentile(latencies, 95),
        p99_ms=percentile(latencies, 99),
        at_percentile_ms=percentile(latencies, bench.tune.percentile),
        samples=len(latencies),
        errors=int(np.sum(measured.status != 200)),
        slo_met=judged.met if raw.reason is None else None,
        mean_batch=float(np.mean(sizes)) if sizes else None,
        service_p99_ms=percentile(measured.service_ms, 99),
        lag_p99_ms=percentile(measured.lag_ms, 99),
        samples_file=str(file.relative_to(bench.out)),
        error_classes=measured.errors,
        wasted=_wasted(measured, raw.batches) if bench.reported else None,
        memory_mb=raw.memory_mb,
        limit=limit,
        too_large=too_large,
        load_s=load.warmup_s + load.seconds,
        took_s=raw.took_s,
        run=raw.run if raw.run != run else None,
        load={name: getattr(load, name) for name in REPEATED},
    )


def broken_limit(config: TuneConfig, raw: Raw) -> tuple[str | None, bool]:
    """The first limit beside latency that a trial broke, with its figure, and whether it is one of memory; None for none."""
    if config.max_memory_mb is not None and raw.memory_mb is not None and raw.memory_mb > config.max_memory_mb:
        return f"a worker took {raw.memory_mb:.0f} MB (tune.max_memory_mb={config.max_memory_mb:g})", True
    if raw.gpu_share is not None and raw.gpu_share > config.gpu_share:
        return f"{raw.gpu_share:.0%} of a GPU's memory were taken (tune.gpu_share={config.gpu_share:g})", True
    failed = float(np.mean(raw.measured.status != 200))
    if failed > config.max_error_rate:
        return f"{failed:.2%} of the requests had no 200 (tune.max_error_rate={config.max_error_rate:g})", False
    return None, False


def _uneven(measured: Measurement, load: Load) -> str | None:
    """Why a recording says nothing of the wished rate, or None: what is played are its first seconds."""
    if load.arrivals != "replay" or abs(measured.offered_rps / load.rps - 1) <= OFF:
        return None
    return (
        f"the first {load.end_s:.0f} s of {load.replay} offer {measured.offered_rps:.1f} requests/s where {load.rps:.1f} were "
        "wished for: it is too uneven for trials of this length; tune.trial_s and tune.confirm_s make them longer"
    )


def _memory_mb(status: Status | None) -> float | None:
    """The memory of the largest worker; a worker that has just ended has none."""
    found = []
    for pid, _ in status.workers if status is not None else ():
        try:
            found.append(psutil.Process(pid).memory_info().rss / 2**20)
        except psutil.NoSuchProcess:
            continue
    return max(found, default=None)


def _gpu_share() -> float | None:
    """The largest share of a GPU's memory that is taken; None where there is no GPU."""
    return max((gpu.used_mb / gpu.memory_mb for gpu in seen_gpus()), default=None)


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


def _drain(bench: Bench) -> bool:
    """Wait until the server is idle, and say whether it is: a request that was given up is computed all the same."""
    deadline = time.monotonic() + DRAIN_S
    quiet_s, still_since, seen = max(0.3, 2 * bench.slo_ms / 1e3), time.monotonic(), -1
    while time.monotonic() < deadline:
        status, done = bench.server.client.describe(bench.model), len(read_batches(bench.server.batches))
        if done != seen or (status is not None and status.pending):
            still_since, seen = time.monotonic(), done
        elif time.monotonic() - still_since > quiet_s:
            return True
        time.sleep(0.1)
    return False


def _finite(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None
