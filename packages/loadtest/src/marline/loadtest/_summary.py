"""Every figure of a load test by hand: kept as summary.json, and printed from that."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marline.loadtest._load import BURSTINESS, Load, Phase
from marline.loadtest._measurement import OK, Measurement
from marline.loadtest._validity import invalid_reason
from marline.loadtest._verdict import early_verdict, percentile, verdict

SHARES = (50, 95, 99)
OVERLOAD = "HTTP 503 overload"
WORDS = {True: "met", False: "MISSED", None: "undecided"}


def summary(
    load: Load, whole: Measurement, phases: Sequence[tuple[Phase, Measurement]], slo: Mapping[str, float] | None
) -> dict[str, Any]:
    """What a load test showed, as JSON; `slo` has `ms`, `percentile`, `confidence`. A percentile beyond all answers is null."""
    told = asdict(load) | {"replay": str(load.replay) if load.replay is not None else None}
    parts = [
        {"phase": phase.name, "begin_s": phase.begin_s, "rps": phase.rps} | _figures(one, _alone(load, phase), slo)
        for phase, one in phases
        if one.scheduled_s.size
    ]
    return {
        "schema": 1,
        "load": told,
        "senders": whole.senders,
        "slo": slo,
        "figures": _figures(whole, load, slo),
        "phases": parts,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("locust", "gevent", "numpy")},
    }


def valid(told: Mapping[str, Any]) -> bool:
    """Whether the whole and every phase passed each gate."""
    return all(one["invalid_reason"] is None for one in (told["figures"], *told["phases"]))


def described(load: Load) -> str:
    """The load in words, burstiness and recording named."""
    if load.users:
        return f"{load.users} users who each wait for their answer"
    arrivals = {"bursty": f"bursty: gamma gaps, coefficient of variation {BURSTINESS:g}", "replay": f"replay of {load.replay}"}
    shape = "" if load.shape == "steady" else f", shape {load.shape}"
    return f"{load.rps:g} requests/s ({arrivals.get(load.arrivals, load.arrivals)}{shape})"


def lines(told: Mapping[str, Any]) -> Iterator[str]:
    """What is printed: the figures of the whole, then a table of the phases where there are several."""
    rows = list(_rows(told["figures"], told["slo"], closed=told["load"]["users"] > 0))
    width = max(len(name) for name, _ in rows)
    yield from (f"  {name:<{width}}  {text}" for name, text in rows)
    if len(told["phases"]) > 1:
        late = "".join(f"{f'p{share} ms':>9}" for share in SHARES)
        yield f"\n  {'phase':<15}{'offered/s':>10}{'answered/s':>11}{late}{'failed':>8}{'in flight':>10}  valid"
        for one in told["phases"]:
            late = "".join(f"{_shown(one['latency_ms'][f'p{share}']):>9}" for share in SHARES)
            rates = f"{one['offered_rps']:>10.1f}{one['answered_rps']:>11.1f}"
            why = "yes" if one["invalid_reason"] is None else f"NO: {one['invalid_reason']}"
            yield f"  {one['phase']:<15}{rates}{late}{one['samples'] - one['answered']:>8}{one['in_flight']:>10.1f}  {why}"


def _alone(load: Load, phase: Phase) -> Load:
    """A phase as a load of its own, everything before it as its warm-up."""
    return replace(load, shape="steady", rps=phase.rps, warmup_s=phase.begin_s, seconds=phase.end_s - phase.begin_s)


def _figures(one: Measurement, load: Load, slo: Mapping[str, float] | None) -> dict[str, Any]:
    late, errors = one.latencies_ms, one.errors
    found: dict[str, Any] = {
        "seconds": one.seconds,
        "offered_rps": one.offered_rps,
        "answered_rps": one.answered_rps,
        "samples": late.size,
        "answered": int((one.status == OK).sum()),
        "queue_full": errors.get(OVERLOAD, 0),
        "errors": errors,
        "latency_ms": _percentiles(late),
        "service_ms": _percentiles(one.service_ms),
        "lag_p99_ms": _finite(percentile(one.lag_ms, 99)),
        "sender_cpu": one.generator_cpu,
        "in_flight": one.mean_in_flight,
        "in_flight_by_law": one.little_in_flight,
        "invalid_reason": invalid_reason(one, load, slo["ms"] if slo else None, slo["percentile"] if slo else 99),
    }
    if slo is not None and not load.users:
        asked = (slo["ms"], slo["percentile"], slo["confidence"])
        met, after = early_verdict(late, *asked)
        found |= {"verdict": asdict(verdict(late, *asked, one.seconds)), "early": {"met": met, "samples": after}}
    return found


def _rows(one: Mapping[str, Any], slo: Mapping[str, float] | None, *, closed: bool) -> Iterator[tuple[str, str]]:
    count = one["samples"]
    if not closed:
        yield "offered", f"{one['offered_rps']:.1f} requests/s, {count} requests in {one['seconds']:g} s"
    yield "answered 200", f"{one['answered']} ({one['answered'] / count:.1%}), {one['answered_rps']:.1f}/s"
    if one["queue_full"]:
        yield "queue full", f"{one['queue_full']} requests were refused (503) and count as late"
    yield from ((error, str(times)) for error, times in one["errors"].items() if error != OVERLOAD)
    if not closed:
        yield "latency from due", _told(one["latency_ms"], count)
    yield "latency from sent", _told(one["service_ms"], count)
    yield "sender", f"lag p99 {_shown(one['lag_p99_ms'], 2)} ms, {one['sender_cpu']:.0%} of a core"
    yield "in flight", f"{one['in_flight']:.2f} on average, {one['in_flight_by_law']:.2f} by Little's law"
    if slo is not None and "verdict" in one:
        found, early = one["verdict"], one["early"]
        yield f"within {slo['ms']:g} ms", f"{1 - found['over'] / count:.2%} of the requests"
        blocks = f"{found['blocks']} block means" if found["blocks"] else "too short for block means"
        how = f"binomial rule, {blocks}"
        bounds = f"{found['low']:.2%} to {found['high']:.2%} are over it ({slo['confidence']:.0%} each, {how})"
        yield f"p{slo['percentile']:g} objective", f"{WORDS[found['met']]}: {bounds}"
        if early["met"] is not None:
            yield "first decided", f"{WORDS[early['met']]} after {early['samples']} requests, as if they were independent"
    yield "valid", "yes" if one["invalid_reason"] is None else f"NO: {one['invalid_reason']}"


def _told(late: Mapping[str, float | None], count: int) -> str:
    return f"{', '.join(f'{name} {_shown(value)}' for name, value in late.items())} ms over {count} samples"


def _percentiles(latencies_ms: NDArray[np.float64]) -> dict[str, float | None]:
    return {f"p{share}": _finite(percentile(latencies_ms, share)) for share in SHARES}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _shown(value: float | None, digits: int = 1) -> str:
    return "never" if value is None else f"{value:.{digits}f}"
