"""Benchmark `telemetry`: what the tracker adds to a call while its collector is well, absent or ill.

Each condition has a process of its own that makes 600 tracked calls a second for five seconds, each beside an untracked call
of the same trivial method, and a collector in another process. A pair's difference is the added time. Where the collector
takes nothing, the queue is full after 3.7 s, so that three quarters of the calls queue and the rest drop. Beside it, against a
collector that takes 20 ms: byne-serve's pattern, one blocking POST per call, and the tracker again.
"""

import contextlib
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from statistics import median, quantiles
from typing import Any

from marline.telemetry import Settings, Tracker, fake_collector, tracked, tracker

RATE_PER_S, SECONDS = 600, 5
BLOCKING_CALLS = 200
MEDIAN_US, P99_US, RATIO, EXIT_S = 50, 1000, 300, 2.0
CONDITIONS: dict[str, dict[str, Any]] = {
    "up": {},
    "down": {},
    "hung after accept": {"hangs": True},
    "answering 500": {"status": 500},
    "answering 429": {"status": 429, "retry_after": "1"},
    "one byte a second": {"trickle_s": 1.0},
}
SLOW = {"delay_s": 0.02}


def figures() -> list[dict[str, Any]]:
    """Median and 99th percentile of the added time per condition, the end of the process, and the ratio to a blocking POST."""
    rows: list[dict[str, Any]] = []
    for condition, how in CONDITIONS.items():
        told = _measured("queued", None if condition == "down" else how)
        rows += _rows(condition, told)
    queued, blocking = _measured("queued", SLOW), _measured("blocking", SLOW)
    ours, theirs = median(queued["added_us"]), median(blocking["added_us"])
    load = f"{len(blocking['added_us'])} calls one after the other, {_spread(blocking['added_us'])}"
    return [
        *rows,
        _figure("added by a blocking POST, collector of 20 ms, median", theirs, "us", None, len(blocking["added_us"]), load),
        _figure("added by the tracker, same collector, median", ours, "us", MEDIAN_US, len(queued["added_us"]), _load(queued)),
        {
            **_figure(
                "blocking POST against tracker", theirs / ours, "x", RATIO, len(queued["added_us"]), "ratio of the medians"
            ),
            "holds": theirs / ours >= RATIO,
        },
    ]


def _rows(condition: str, told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    added = told["added_us"]
    note = f"{_load(told)}; {told['dropped']} dropped"
    yield _figure(f"added, collector {condition}, median", median(added), "us", MEDIAN_US, len(added), note)
    yield _figure(f"added, collector {condition}, p99", quantiles(added, n=100)[98], "us", P99_US, len(added), _worst(added))
    yield _figure(
        f"end of the process, collector {condition}", told["exit_s"], "s", EXIT_S, 1, "from the last call until it is gone"
    )


def _load(told: dict[str, Any]) -> str:
    return f"{RATE_PER_S} calls/s for {SECONDS} s, {_spread(told['added_us'])}"


def _spread(added: list[float]) -> str:
    parts = [median(part) for part in _fifths(added)]
    return f"medians of fifths {min(parts):.0f} to {max(parts):.0f} us"


def _worst(added: list[float]) -> str:
    parts = [quantiles(part, n=100)[98] for part in _fifths(added)]
    return f"p99 of fifths {min(parts):.0f} to {max(parts):.0f} us; worst {max(added):.0f}"


def _fifths(added: list[float]) -> list[list[float]]:
    length = len(added) // 5
    return [added[start : start + length] for start in range(0, 5 * length, length)]


def _figure(name: str, value: float, unit: str, bar: float | None, samples: int, note: str) -> dict[str, Any]:
    holds = None if bar is None else value <= bar
    return {"name": name, "value": round(value, 2), "unit": unit, "bar": bar, "holds": holds, "samples": samples, "note": note}


def _measured(way: str, how: dict[str, Any] | None) -> dict[str, Any]:
    """Run this file in a fresh process against a collector in another; None: against no collector at all."""
    with _collector(how) as url:
        command = [sys.executable, __file__, way, url]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, timeout=120)
        ended = time.monotonic()
    told: dict[str, Any] = json.loads(done.stdout)
    return {**told, "exit_s": ended - told["ending"]}


@contextlib.contextmanager
def _collector(how: dict[str, Any] | None) -> Iterator[str]:
    if how is None:
        yield "http://127.0.0.1:9/reports/tiny"  # the discard port, at which nothing listens
        return
    command = [sys.executable, __file__, "collect", json.dumps(how)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate(timeout=30)  # the end of its input is the end of it


def collect(how: dict[str, Any]) -> None:
    """Be the collector until the input ends."""
    with fake_collector(batches=True) as collector:
        if how.pop("hangs", False):
            collector.answer.clear()
        for name, value in how.items():
            setattr(collector, name, value)
        print(collector.url, flush=True)
        sys.stdin.read()


class Queued:
    """A trivial model, tracked."""

    def __init__(self, url: str) -> None:
        self.tracker = Tracker(Settings(url, "trivial", "minimal"))

    def bare(self, value: float) -> float:
        return 2 * value

    forward = tracked(bare)


class Blocking:
    """The same as byne-serve tracks it: each call posts its report and waits for the answer, up to 5 s."""

    def __init__(self, url: str) -> None:
        self.address = f"{url}/report"

    def bare(self, value: float) -> float:
        return 2 * value

    def forward(self, value: float) -> float:
        result = self.bare(value)
        report = {
            "machine_id": "0" * 64,
            "status": "success",
            "timestamp": time.strftime("%Y-%m-%d %H:%M:%S"),
            "method": "forward",
        }
        request = urllib.request.Request(self.address, json.dumps(report).encode(), {"Content-Type": "application/json"})  # noqa: S310
        with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5):  # noqa: S310 - our own, on loopback
            pass
        return result


def measure(way: str, url: str) -> None:
    """Print the added time of each pair of calls, what was dropped, and when (monotonic) there was nothing left to do."""
    model = Queued(url) if way == "queued" else Blocking(url)
    calls, pace_s = (RATE_PER_S * SECONDS, 1 / RATE_PER_S) if way == "queued" else (BLOCKING_CALLS, 0.0)
    model.forward(1.0)
    added = []
    due = time.perf_counter()
    for number in range(calls):
        due += pace_s
        time.sleep(max(0.0, due - time.perf_counter()))
        if number % 2:
            tracked_s, bare_s = _seconds(model.forward), _seconds(model.bare)
        else:
            bare_s, tracked_s = _seconds(model.bare), _seconds(model.forward)
        added.append(1e6 * (tracked_s - bare_s))
    dropped = tracker.sender(url).dropped if way == "queued" else 0
    print(json.dumps({"added_us": added, "dropped": dropped, "ending": time.monotonic()}))


def _seconds(method: Callable[[float], float]) -> float:
    began = time.perf_counter()
    method(2.0)
    return time.perf_counter() - began


if __name__ == "__main__":
    if sys.argv[1] == "collect":
        collect(json.loads(sys.argv[2]))
    else:
        measure(sys.argv[1], sys.argv[2])
