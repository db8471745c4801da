"""What every batch leaves behind: its size and times, for whoever tunes, and a report of each request. Goes into every archive.

The times are counters of TorchServe's, by batch size, so that t(b) can be read from any server's metrics address whose metrics
configuration names them, or that has `model_metrics_auto_detect=true`; where the environment names a folder, also one line per
batch in a file there.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

try:  # beside this file in an archive; an archive made by hand may leave it out
    from marline_tracker import Tracker, enabled, read_settings
except ImportError:
    Tracker = None

BATCH_LOG = "MARLINE_BATCH_LOG"  # a folder; every worker appends one line per batch to <pid>.csv in it
METRICS = {  # TorchServe's counters and their units: batches, and milliseconds that add up
    "MarlineBatches": "count",
    **dict.fromkeys(("MarlinePreprocess", "MarlineInference", "MarlinePostprocess"), "ms"),
}
DIMENSIONS = ("BatchSize", "ModelName", "Level")


class BatchFacts:
    """Where the facts of a worker's batches go: nowhere, unless the server or the archive says so."""

    def __init__(self, log: TextIO | None = None, tracker: Any = None, metrics: Any = None, model: str = "") -> None:
        self.log, self.tracker, self.model = log, tracker, model
        self.counters = _counters(metrics) if metrics is not None else []

    @classmethod
    def of(cls, folder: Path, context: Any) -> "BatchFacts":
        """By the environment, the archive's `tracker.json` and TorchServe's metrics cache."""
        where = os.environ.get(BATCH_LOG)
        log = (Path(where) / f"{os.getpid()}.csv").open("a", buffering=1) if where else None
        return cls(log, _tracker(folder), getattr(context, "metrics", None), str(getattr(context, "model_name", "")))

    def record(self, size: int, began: float, preprocessed: float, inferred: float) -> None:
        """One batch, by the monotonic instants in seconds between its stages; it ends now."""
        ended = time.monotonic()
        stages = (preprocessed - began, inferred - preprocessed, ended - inferred)
        if self.log is not None:
            print(f"{ended:.6f},{size}," + ",".join(f"{stage * 1e3:.3f}" for stage in stages), file=self.log)
        for counter, value in zip(self.counters, (1, *(round(stage * 1e3, 3) for stage in stages)), strict=False):
            counter.add_or_update(value, [str(size), self.model, "Model"])  # a log line that the frontend reads and counts
        if self.tracker is not None:
            for _ in range(size):
                self.tracker.report("predict", "success", ended - began)


def _counters(metrics: Any) -> list[Any]:
    from ts.metrics.metric_type_enum import MetricTypes  # noqa: PLC0415 - only inside TorchServe

    known = metrics.cache.get(MetricTypes.COUNTER, {})  # those that the server's metrics configuration names
    return [
        known.get(name) or metrics.add_metric_to_cache(name, unit, list(DIMENSIONS), MetricTypes.COUNTER)
        for name, unit in METRICS.items()
    ]


def _tracker(folder: Path) -> Any:
    file = folder / "tracker.json"
    if Tracker is None or not file.is_file():
        return None
    settings = read_settings(file)
    if not enabled(settings, server=True):
        return None
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # how TorchServe ends a worker: what is queued goes out first
    return Tracker(settings)
