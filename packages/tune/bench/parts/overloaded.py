"""A sender that is asked for more than one process can send: it must say so, and not blame the server."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from marline.core import project_root
from marline.loadtest import Load, Target, _child, invalid_reason, measure, measuring, percentile
from packages.handler.bench.parts.figure import figure

SERVER = project_root() / "packages" / "loadtest" / "tests" / "server.py"  # answers at once, whatever comes
POSSIBLE, TOO_MUCH, SECONDS, SLO_MS = 100.0, 10_000.0, 4.0, 100.0


def overloaded() -> list[dict[str, Any]]:
    """A trivial server at a rate that one process can send, and at one that it cannot: only the first is valid."""
    with measuring("the benchmark of the sender"), tempfile.TemporaryDirectory(prefix="marline-bench-") as folder:
        guarded = [sys.executable, "-I", "-S", str(_child.__file__), str(os.getpid())]
        command = [*guarded, sys.executable, str(SERVER), "0", "200", "-1", "0", "", ""]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            try:
                assert server.stdout is not None
                to = Target(url=f"http://127.0.0.1:{int(server.stdout.readline())}/", token=None)
                return [_at(rps, to, Path(folder)) for rps in (POSSIBLE, TOO_MUCH)]
            finally:
                server.kill()


def _at(rps: float, to: Target, folder: Path) -> dict[str, Any]:
    payload = folder / "payload.txt"
    payload.write_text("a few words")
    load = Load(rps=rps, seconds=SECONDS, warmup_s=1, arrivals="poisson", seed=0, timeout_s=5)
    seen = measure(to, [payload], load, folder / f"{rps:g}")
    reason = invalid_reason(seen, load, SLO_MS)
    p99 = f"p99 {percentile(seen.latencies_ms, 99):.1f} ms"
    told = f"{seen.answered_rps:.0f} answered/s, {seen.generator_cpu:.0%} of a core, {p99}"
    holds = (reason is None) == (rps == POSSIBLE)
    name = f"p99 of the sender's lag when asked for {rps:g} requests/s of a trivial server"
    lag_ms = percentile(seen.lag_ms, 99)
    value = lag_ms if lag_ms < float("inf") else None
    judged = f"INVALID: {reason}" if reason else "valid"
    return figure(name, value, "ms", None, holds, seen.scheduled_s.size, f"{judged}; {told}")
