"""The twin against a real TorchServe: six service curves, four settings each, all fixed beforehand.

Everything the twin knows is what `measure_service` saw of one worker: its overheads are not fitted to any load test. Each curve
is slowed by its stated scale, so that two cores carry server, worker and sender. For each setting the twin first says its
highest rate R within the objective; then

- open-loop trials at 0.8, 0.95 and 1.1 R, each with a schedule of its own, and where these do not enclose the objective one at
  0.65 or 1.25 R. A trial that its own gates call invalid is sent once more; if that is invalid too, it counts as it is and the
  row says so. `accuracy_table.py` makes the figures of them.
- saturated: 1.4 times as many requests as the twin says the server can serve, for some seconds, and how many the worker's own
  log says that it served of them.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from marline.core import accelerator_of, project_root, read_config
from marline.deploy import Server, serving
from marline.loadtest import Load, Measurement, Target, invalid_reason, measure, measuring, percentile
from marline.tune import Service, Setting, measure_service, predict, simulate
from marline.tune._batches import read_batches
from packages.handler.bench.parts.archives import life
from packages.tune.bench.parts.accuracy_table import row, rows, table
from packages.tune.bench.parts.kept import MEASURING, once

MODEL, PERCENTILE, REPEATS = "digits_cnn", 99.0, 30
SHARES, BEYOND = (0.8, 0.95, 1.1), (0.65, 1.25)
SHORTEST_S, WARM_S, FLOOD_S, FLOOD, TIMEOUT_S = 15.0, 2.0, 8.0, 1.4, 10.0
TWIN = ("_twin", "_twin_loop", "_service", "_curve", "_burst", "_batches")
CODE = (*MEASURING, *(f"packages/tune/src/marline/tune/{name}.py" for name in TWIN), "packages/tune/bench/parts/accuracy.py")
ENOUGH, LONGEST_S = 600, 40.0  # requests of a trial, which is longer where they come slowly


@dataclass(frozen=True, slots=True)
class Curve:
    """A published service curve, how much it is slowed, the objective, and what is tried: the knee and two workers among it."""

    key: str
    scale: float
    slo_ms: float
    settings: tuple[Setting, ...]


CURVES = (
    Curve("rn50_t4_pytorch_eager_amp", 4, 300, (Setting(8, 5, 1), Setting(16, 2, 1), Setting(8, 10, 2), Setting(1, 100, 1))),
    Curve("rn50_t4_pytorch_eager_fp32", 2, 200, (Setting(4, 5, 1), Setting(8, 10, 1), Setting(8, 5, 2), Setting(1, 100, 1))),
    Curve("rn50_t4_ort_trt_fp16", 4, 200, (Setting(4, 5, 1), Setting(8, 2, 1), Setting(4, 5, 2), Setting(1, 100, 1))),
    Curve("bert_base_s384_t4_trt_fp16", 2, 200, (Setting(2, 5, 1), Setting(4, 5, 1), Setting(4, 5, 2), Setting(1, 100, 1))),
    Curve("bert_base_s128_t4_tf2_fp16", 4, 250, (Setting(4, 10, 1), Setting(8, 5, 1), Setting(8, 5, 2), Setting(1, 100, 1))),
    Curve("rn50_v100_pytorch_eager_amp", 8, 500, (Setting(8, 10, 1), Setting(16, 5, 1), Setting(32, 5, 1), Setting(16, 5, 2))),
)


def accuracy() -> list[dict[str, Any]]:
    """Highest rate within the objective, p99 and saturated throughput, predicted and measured; writes docs/twin.md."""
    cells: list[dict[str, Any]] = []
    for curve in CURVES:
        cells += _cells(curve)
        (project_root() / "docs" / "twin.md").write_text(table(cells))
    return rows(cells)


def _cells(curve: Curve) -> list[dict[str, Any]]:
    """What is kept of a curve's settings, and is measured now of the others; a server is started when the first needs one."""
    with ExitStack() as stack:
        started: list[Bench] = []

        def bench() -> Bench:
            if not started:
                started.append(stack.enter_context(_started(curve)))
            return started[0]

        service = Service.read(
            once(f"accuracy-{curve.key}-service", lambda: asdict(_service(bench(), curve)), asked=asdict(curve), code=CODE)
        )
        cells = []
        for setting in curve.settings:
            name = f"accuracy-{curve.key}-{setting.batch_size}-{setting.max_batch_delay_ms}-{setting.workers}"
            cells.append(once(name, partial(_cell, bench, curve, service, setting), asked=asdict(curve), code=CODE))
        return cells


@dataclass(frozen=True, slots=True)
class Bench:
    """A server that emulates one curve, and what is served and sent."""

    server: Server
    archive: Path
    payloads: Sequence[Path]
    logs: Path


@contextmanager
def _started(curve: Curve) -> Iterator[Bench]:
    made = life(MODEL)
    config = read_config([f"model={MODEL}", f"accelerator={curve.key}", f"time_scale={curve.scale}"]).config
    accelerator = accelerator_of(config, project_root())
    with (
        tempfile.TemporaryDirectory(prefix="marline-bench-") as kept,
        measuring(f"the benchmark of the twin, {curve.key}"),
        serving(config.deploy, Path(kept, "logs"), accelerator=accelerator, threads=1) as server,
    ):
        yield Bench(server, made.archive, sorted(made.loaded.path("sample").iterdir()), Path(kept))


def _service(bench: Bench, curve: Curve) -> Service:
    largest = max(setting.batch_size for setting in curve.settings)
    began = time.monotonic()
    found = measure_service(bench.server, bench.archive, MODEL, bench.payloads, [largest], REPEATS, shared=True)
    told = f"o_batch {found.batch_ms:.2f}, o_request {found.request_ms:.2f}, HTTP {found.http_ms:.2f} ms"
    print(f"  {curve.key}: service curve to {largest} in {time.monotonic() - began:.0f} s, {told}", flush=True)
    return found


def _cell(bench: Callable[[], Bench], curve: Curve, service: Service, setting: Setting) -> dict[str, Any]:
    """Everything of one setting: what the twin said before, and what was measured after."""
    (said,) = predict(service, [setting], curve.slo_ms, PERCENTILE)
    used = bench()
    used.server.load(used.archive, MODEL, **asdict(setting))
    try:
        trials = [_trial(used, curve, service, setting, share * said.rps) for share in SHARES]
        outside = {min(one["measured_p99_ms"] for one in trials) > curve.slo_ms: BEYOND[0]}
        outside |= {max(one["measured_p99_ms"] for one in trials) < curve.slo_ms: BEYOND[1]}
        if True in outside:
            trials.append(_trial(used, curve, service, setting, outside[True] * said.rps))
        served_rps = _flooded(used, setting, FLOOD * said.saturated_rps)
    finally:
        used.server.unload(MODEL)
    found = {
        "curve": curve.key,
        "scale": curve.scale,
        "slo_ms": curve.slo_ms,
        "setting": [setting.batch_size, setting.max_batch_delay_ms, setting.workers],
        "predicted_rps": said.rps,
        "trials": trials,
        "predicted_saturated_rps": said.saturated_rps,
        "measured_saturated_rps": served_rps,
    }
    print(f"  {row(found)}", flush=True)
    return found


def _trial(bench: Bench, curve: Curve, service: Service, setting: Setting, rps: float) -> dict[str, Any]:
    seconds = min(LONGEST_S, max(SHORTEST_S, ENOUGH / rps))
    measured, reason = _sent(bench, rps, seconds, curve.slo_ms)
    if reason is not None:
        measured, reason = _sent(bench, rps, seconds, curve.slo_ms)
    p99 = percentile(measured.latencies_ms, PERCENTILE)
    return {
        "rps": measured.offered_rps,
        "measured_p99_ms": p99 if math.isfinite(p99) else TIMEOUT_S * 1e3,
        "twin_p99_ms": percentile(simulate(service, setting, measured.scheduled_s), PERCENTILE),
        "measured_p50_ms": percentile(measured.latencies_ms, 50),
        "twin_p50_ms": percentile(simulate(service, setting, measured.scheduled_s), 50),
        "samples": measured.status.size,
        "invalid": reason,
    }


def _sent(bench: Bench, rps: float, seconds: float, slo_ms: float) -> tuple[Measurement, str | None]:
    number = len(list(bench.logs.glob("trial-*")))
    told = {"rps": rps, "seconds": seconds, "warmup_s": WARM_S, "seed": number, "timeout_s": TIMEOUT_S}
    load = Load(arrivals="poisson", **told)  # type: ignore[arg-type]
    client = bench.server.client
    target = Target(url=f"{client.inference_url}/predictions/{MODEL}", token=client.tokens.inference)
    measured = measure(target, bench.payloads, load, bench.logs / f"trial-{number:03d}")
    return measured, invalid_reason(measured, load, slo_ms)


def _flooded(bench: Bench, setting: Setting, rps: float) -> float:
    """Requests a second that the workers completed while they had more than they could do, by their own log."""
    before = len(read_batches(bench.server.batches))
    _sent(bench, rps, FLOOD_S, math.inf)
    batches = read_batches(bench.server.batches)[before:]
    full = [batch for batch in batches if batch.size == setting.batch_size]
    begin, end = full[len(full) // 5].ended_s, full[len(full) * 4 // 5].ended_s  # the queue is long between the two
    return sum(batch.size for batch in batches if begin < batch.ended_s <= end) / (end - begin)
