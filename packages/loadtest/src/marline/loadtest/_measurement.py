"""Raw samples of one load test: a row per judged request, never thinned, never averaged."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marline.core import LoadTestError
from marline.loadtest._load import Load, Phase, phases

Floats = NDArray[np.float64]
OK = 200
SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurement:
    """Rows of the judged requests, in the order they were due; instants in seconds since the load began."""

    scheduled_s: Floats
    sent_s: Floats  # NaN: never sent
    finished_s: Floats  # NaN: never over; for a lost request when it was given up
    status: NDArray[np.int16]  # 0: no answer
    error: NDArray[np.str_]  # "" or a class such as "Timeout" or "HTTP 503 overload"
    payload: NDArray[np.int32]
    size_bytes: NDArray[np.int64]
    in_flight: Floats  # [samples, 2]: instant, requests in flight then, over all senders
    mean_in_flight: float  # as the senders counted, averaged over the judged seconds
    little_in_flight: float  # the same by Little's law, L = throughput x latency, from the rows alone
    generator_cpu: float  # share of one core a sender used while judged requests were due; of several the busiest
    offered_rps: float
    answered_rps: float  # 200s that came within the judged seconds, whenever they were asked for
    seconds: float
    total: int  # rows including those of the warm-up, which are not here
    senders: int = 1
    missing: int = 0  # senders that were not there at the end

    @property
    def latencies_ms(self) -> Floats:
        """From when each request was due to the end of its answer; infinite without a 200."""
        return np.where(self.status == OK, (self.finished_s - self.scheduled_s) * 1e3, np.inf)

    @property
    def service_ms(self) -> Floats:
        """From when each request was sent; infinite without a 200. Hides waiting, so it decides nothing."""
        return np.where(self.status == OK, (self.finished_s - self.sent_s) * 1e3, np.inf)

    @property
    def lag_ms(self) -> Floats:
        """How late each request was sent; infinite where it never was."""
        return np.where(np.isnan(self.sent_s), np.inf, (self.sent_s - self.scheduled_s) * 1e3)

    @property
    def errors(self) -> dict[str, int]:
        """How many requests had no 200, by class, the most frequent first."""
        return dict(Counter(str(error) for error in self.error[self.status != OK]).most_common())

    def save(self, file: Path) -> str:
        """Write everything to one .npz file, which is there whole or not at all; returns its sha256."""
        partial = file.with_name(f".{file.name}.partial")
        with partial.open("wb") as stream:
            np.savez_compressed(stream, **{field.name: getattr(self, field.name) for field in fields(self)})
        sha256 = hashlib.sha256(partial.read_bytes()).hexdigest()
        partial.replace(file)
        return sha256


def read_measurement(file: Path) -> Measurement:
    """Read back what `save` wrote."""
    with np.load(file, allow_pickle=False) as stored:
        return Measurement(**{name: stored[name] if stored[name].ndim else stored[name].item() for name in stored.files})


def read_samples(file: Path, load: Load) -> Measurement:
    """The judged part of what the senders wrote; LoadTestError where no request fell into it."""
    judged = _cut(json.loads(file.read_text()), load.warmup_s, load.end_s)
    if not judged.scheduled_s.size:
        raise LoadTestError(
            f"no request was due in {load.seconds:g} s at {load.rps:g} requests/s; raise loadtest.seconds or loadtest.rps"
        )
    return judged


def read_phases(file: Path, load: Load) -> list[tuple[Phase, Measurement]]:
    """The same, each phase by itself: a request belongs to the phase in which it was due."""
    samples = json.loads(file.read_text())
    return [(phase, _cut(samples, phase.begin_s, phase.end_s)) for phase in phases(load)]


def _cut(samples: dict[str, Any], begin_s: float, end_s: float) -> Measurement:
    scheduled, sent, finished = (np.array(samples[name], np.float64) for name in ("scheduled_s", "sent_s", "finished_s"))
    status, seconds = np.array(samples["status"], np.int16), end_s - begin_s
    judged = (scheduled >= begin_s) & (scheduled < end_s)
    held_s = np.minimum(finished, end_s) - np.maximum(scheduled, begin_s)  # of the judged seconds, by each request
    series = [np.array(one, np.float64).T for one in samples["samples"]]
    instants = np.arange(begin_s, end_s, SAMPLE_S)
    counted = sum((np.interp(instants, one[0], one[1]) for one in series), np.zeros(instants.size))
    return Measurement(
        scheduled_s=scheduled[judged],
        sent_s=sent[judged],
        finished_s=finished[judged],
        status=status[judged],
        error=np.array(samples["error"], np.str_)[judged],
        payload=np.array(samples["payload"], np.int32)[judged],
        size_bytes=np.array(samples["bytes"], np.int64)[judged],
        in_flight=np.stack([instants, counted], axis=1),
        mean_in_flight=sum(_growth(one[0], one[2], begin_s, end_s) for one in series) / seconds,
        little_in_flight=float(np.nansum(np.clip(held_s, 0, None))) / seconds,
        generator_cpu=max((_growth(one[0], one[3], begin_s, end_s) for one in series), default=0.0) / seconds,
        offered_rps=int(judged.sum()) / seconds,
        answered_rps=int(((status == OK) & (finished >= begin_s) & (finished < end_s)).sum()) / seconds,
        seconds=seconds,
        total=scheduled.size,
        senders=samples["senders"],
        missing=samples["missing"],
    )


def _growth(instants: Floats, value: Floats, begin_s: float, end_s: float) -> float:
    begin, end = np.interp([begin_s, end_s], instants, value)
    return float(end - begin)
