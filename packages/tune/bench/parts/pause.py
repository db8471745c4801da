"""A server that stands still for a second: what a load test with a schedule makes of it, and what users see who wait."""

import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from marline.core import read_config
from marline.deploy import Server, serving
from marline.loadtest import Load, Measurement, Target, invalid_reason, measure, measuring, percentile
from packages.handler.bench.parts.archives import Life, life
from packages.handler.bench.parts.closed_loop import target
from packages.handler.bench.parts.figure import figure

MODEL, RPS, SECONDS, USERS, SLO_MS = "digits_cnn", 100.0, 5.0, 4, 100.0
PAUSE_S, INTO_S, STARTED_S = 1.0, 3.0, 30.0
LEAST_MS, BLIND_MS = 900.0, 200.0  # of 500 requests the fifth slowest came 50 ms after the pause began


def pause() -> list[dict[str, Any]]:
    """TorchServe, stopped by SIGSTOP for 1 s: p99 of an open loop is about 1 s, a closed loop does not see it."""
    load = Load(rps=RPS, seconds=SECONDS, warmup_s=2.0, arrivals="poisson", seed=0, timeout_s=10.0)
    loads = {"open": load, "closed": replace(load, users=USERS)}
    made = life(MODEL)
    with (
        measuring("the benchmark of pauses"),
        tempfile.TemporaryDirectory(prefix="marline-bench-") as folder,
        serving(read_config([f"model={MODEL}"]).config.deploy, Path(folder, "logs")) as server,
    ):
        server.load(made.archive, MODEL, batch_size=4, max_batch_delay_ms=5, workers=1)
        to = target(server, MODEL)
        found = {name: _paused(server, to, made, one, Path(folder, name)) for name, one in loads.items()}
    reason = invalid_reason(found["open"], loads["open"], SLO_MS) or "valid: the pause is the server's"
    return [_row("open", found["open"], LEAST_MS, reason), _row("closed", found["closed"], BLIND_MS, f"{USERS} users")]


def _row(kind: str, seen: Measurement, bar: float, note: str) -> dict[str, Any]:
    p99 = percentile(seen.latencies_ms, 99)
    slow = f"slowest {percentile(seen.latencies_ms, 100):.0f} ms, p50 {percentile(seen.latencies_ms, 50):.1f} ms"
    holds = p99 >= bar if kind == "open" else p99 <= bar
    name = f"{MODEL}, server paused 1 s of {SECONDS:g}, p99 of the {kind} loop"
    return figure(name, p99, "ms", bar, holds, seen.scheduled_s.size, f"{slow}, {seen.answered_rps:.0f} answered/s; {note}")


def _paused(server: Server, to: Target, made: Life, load: Load, out: Path) -> Measurement:
    pausing = threading.Thread(target=_pause, args=(server, out / "locust.log"), daemon=True)
    pausing.start()
    seen = measure(to, sorted(made.loaded.path("sample").iterdir()), load, out)
    pausing.join()
    return seen


def _pause(server: Server, log: Path) -> None:
    """Stop Java and its workers once the load is under way, and let them go on."""
    deadline = time.monotonic() + STARTED_S
    while not (log.is_file() and "All users spawned" in log.read_text()):
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
    time.sleep(INTO_S)
    java = psutil.Process(int((server.folder / "java.pid").read_text()))
    stopped = [java, *java.children(recursive=True)]
    for process in stopped:
        process.suspend()
    time.sleep(PAUSE_S)
    for process in reversed(stopped):
        process.resume()
