"""Whether a load test measured the server, or itself. Each gate says in words what is wrong, with the figure and its limit."""

import math
import os
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from marline.loadtest._load import Load
from marline.loadtest._measurement import OK, Measurement
from marline.loadtest._verdict import percentile

SHARED = len(os.sched_getaffinity(0)) < 4  # a server, its workers and the sender have no core each: docs/decisions/0016
CPU_LIMIT = 0.9 if SHARED else 0.8
ACHIEVED_LIMIT = 0.99
LITTLE_LIMIT = 0.05
FEW_ROWS = 200
OURS = ("EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM")  # the sender's own machine had no room for a connection
BLOCKS, SURE, GROWTH = 10, 0.999, 1.0  # of the tests for a steady state; the last is growth over the trial, in means

Gate = Callable[[Measurement, Load, float | None, float], str | None]


def invalid_reason(measurement: Measurement, load: Load, slo_ms: float | None, at_percentile: float = 99) -> str | None:
    """The first gate this measurement fails, in words, with its figure and limit; None when it is valid.

    Users who wait for their answers have no schedule to be late for and always reach a steady state.
    """
    gates = CLOSED if load.users else OPEN
    return next((words for gate in gates if (words := gate(measurement, load, slo_ms, at_percentile)) is not None), None)


def lag_limit_ms(slo_ms: float | None, *, shared: bool = SHARED) -> float:
    """How late requests may be sent, p99: max(1 ms, 2 % of the objective), or 5 % of it where the sender shares its cores.

    Never more than 5 % where the sender has a core of its own.
    """
    if slo_ms is None:
        return 1.0
    return max(1.0, 0.05 * slo_ms) if shared else min(max(1.0, 0.02 * slo_ms), 0.05 * slo_ms)


def missing_senders(measurement: Measurement, _load: Load, _slo_ms: float | None, _percentile: float) -> str | None:
    """Without the rows of a sender the load was another, and who knows which answers were slow."""
    if not measurement.missing:
        return None
    return f"{measurement.missing} of {measurement.senders} workers were missing at the end (limit 0)"


def unsent(measurement: Measurement, _load: Load, _slo_ms: float | None, _percentile: float) -> str | None:
    """Every planned request must have been sent."""
    count = int(np.isnan(measurement.sent_s).sum())
    return f"{count} of {measurement.sent_s.size} requests were never sent (limit 0)" if count else None


def refused_tokens(measurement: Measurement, _load: Load, _slo_ms: float | None, _percentile: float) -> str | None:
    """A refused token is our fault, not the model's."""
    count = sum(count for error, count in measurement.errors.items() if error.endswith("InvalidKeyException"))
    return f"{count} requests were refused for their token (limit 0)" if count else None


def own_errors(measurement: Measurement, _load: Load, _slo_ms: float | None, _percentile: float) -> str | None:
    """Nor is it the model's that we had no file descriptor or port left."""
    count = {error: count for error, count in measurement.errors.items() if error.endswith(OURS)}
    return f"{sum(count.values())} requests failed on the sender's side: {', '.join(count)} (limit 0)" if count else None


def late(measurement: Measurement, _load: Load, slo_ms: float | None, _percentile: float) -> str | None:
    """Late sending is charged to the server, as latency counts from when a request was due."""
    lag_ms, limit_ms = percentile(measurement.lag_ms, 99), lag_limit_ms(slo_ms)
    return f"requests were sent late: p99 of the lag {lag_ms:.1f} ms (limit {limit_ms:.1f} ms)" if lag_ms > limit_ms else None


def busy(measurement: Measurement, _load: Load, _slo_ms: float | None, _percentile: float) -> str | None:
    """A sender without time to spare reads answers late."""
    cpu = measurement.generator_cpu
    return f"the sender was busy: {cpu:.2f} of a core (limit {CPU_LIMIT:.2f})" if cpu >= CPU_LIMIT else None


def achieved(measurement: Measurement, load: Load, _slo_ms: float | None, _percentile: float) -> str | None:
    """The planned rate must have been sent."""
    in_time = measurement.sent_s <= load.end_s
    if in_time.mean() >= ACHIEVED_LIMIT or (~in_time).sum() <= 1:  # the last may be due a moment before the end
        return None
    return f"only {in_time.mean():.1%} of the requests were sent within the time (limit {ACHIEVED_LIMIT:.0%})"


def little(measurement: Measurement, _load: Load, _slo_ms: float | None, _percentile: float) -> str | None:
    """A check of our books: Little's law holds on every path, overload included (Little, Operations Research 9, 1961)."""
    counted, by_law = measurement.mean_in_flight, measurement.little_in_flight
    if measurement.total <= FEW_ROWS or abs(counted - by_law) <= LITTLE_LIMIT * by_law:
        return None
    return f"{counted:.2f} requests were in flight, by Little's law {by_law:.2f} should have been (limit {LITTLE_LIMIT:.0%})"


def unsteady(measurement: Measurement, load: Load, slo_ms: float | None, at_percentile: float) -> str | None:
    """A queue that grows will miss the objective later; where it is missed already, it is over capacity, which is a result."""
    over = slo_ms is not None and percentile(measurement.latencies_ms, at_percentile) > slo_ms
    return None if over or load.shape not in {"steady", "soak"} else growing(measurement)


def growing(measurement: Measurement) -> str | None:
    """In words, where requests in flight and latency both grew throughout; None where the queue may be a steady one.

    Both are averaged over ten blocks of time, and lines fitted to them. A steady queue wanders as well, the further the
    closer it is to its capacity, and neighbouring blocks wander together: a line must be steeper than chance makes it
    (Student's t, 99.9 %), and rise by as much as the mean within the trial.
    """
    if measurement.scheduled_s.size < FEW_ROWS:
        return None
    begin_s = measurement.in_flight[0, 0]
    edges = begin_s + measurement.seconds * np.arange(1, BLOCKS) / BLOCKS
    answered = measurement.status == OK
    queued = np.split(measurement.in_flight[:, 1], np.searchsorted(measurement.in_flight[:, 0], edges))
    waited = np.split(measurement.latencies_ms[answered], np.searchsorted(measurement.scheduled_s[answered], edges))
    if not all(block.size for block in (*queued, *waited)):
        return None
    grown = [_growth(np.array([block.mean() for block in blocks])) for blocks in (queued, waited)]
    if None in grown:
        return None
    told = f"requests in flight grew by {grown[0]:.1f} times their mean, latencies by {grown[1]:.1f} times theirs"
    return f"no steady state: {told} (limit {GROWTH:g} for both)"


def _growth(means: NDArray[np.float64]) -> float | None:
    """By how many times its mean a fitted line rises from the first block to the last; None where uncertain or little."""
    x = np.arange(means.size) - (means.size - 1) / 2
    slope = float((x * means).sum() / (x**2).sum())
    left = means - means.mean() - slope * x
    freedom = means.size - 2
    error = math.sqrt(float((left**2).sum()) / freedom / float((x**2).sum()))
    grown = slope * means.size / float(means.mean()) if means.mean() > 0 else 0.0
    return grown if grown > GROWTH and slope > float(stdtrit(freedom, SURE)) * error else None


CLOSED: tuple[Gate, ...] = (missing_senders, refused_tokens, own_errors, busy, little)
OPEN: tuple[Gate, ...] = (missing_senders, unsent, refused_tokens, own_errors, late, busy, achieved, little, unsteady)
