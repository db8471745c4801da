"""What of a run can be compared, each figure with how sure it is: from raw samples, never from a percentile alone.

A latency or a service time has `se`, the standard deviation of its logarithm, by a circular block bootstrap (Politis and
Romano, 1992): neighbours in a queue are late together, so blocks of neighbours are drawn, not requests. Of two trials with the
same arrivals the same blocks are drawn, as the same moments are hard for both. A rate lies between two trials. `noise` is what
two trials of the same (A/A) differed by beyond that, as a variance of the logarithm: of latencies, and of a batch's time.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from marline.loadtest import percentile, read_measurement

PERCENTILES = {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99}
BEYOND = 5  # requests beyond a percentile: with fewer it is their luck, and drawing them again does not show how much
DRAWS, AT_ONCE = 400, 25
FEWEST, MOST, BLOCK_LATENCIES = 10, 50, 20  # blocks, and each as long as so many latencies (p99) where that leaves enough
SETTING = ("batch_size", "max_batch_delay_ms", "workers")
Trial = Mapping[str, Any]


def metrics(result: Mapping[str, Any], tune: Path, sure: float, cold_start_s: float | None) -> dict[str, Any]:
    """Every metric of one run; `tune` is the folder with its samples, `sure` the confidence of intervals (0 to 1)."""
    trials, chosen = result["trials"], confirmation(result)
    again = [trial for trial in trials if trial["purpose"] == "baseline"]
    floor = result["noise"]["rps_floor"] if result["noise"] is not None else None
    limits = {name: _limits(trials, result[name], floor) for name in ("chosen", "default")}
    none = 0.0 if result["chosen"]["slo_met"] is False else None  # nothing is known where no trial was valid
    return {
        "confidence": sure,
        "rps": {"value": result["chosen"]["rps"] or none, **limits["chosen"]},
        "gain": _gain(result["gain"], **limits),
        **(_of_trial(chosen, trials, tune, sure) if chosen is not None else {}),
        "cold_start_s": {"value": cold_start_s, "low": cold_start_s, "high": cold_start_s},
        "curve_ms": {str(point["batch"]): _service_time(point, sure) for point in result["curve"]},
        "noise": _noise(result, tune),
        "rate_noise": floor,
        "load": _told(chosen),
        "baseline": {**_of_trial(again[-1], trials, tune, sure), "load": _told(again[-1])} if again else None,
    }


def confirmation(result: Mapping[str, Any]) -> Trial | None:
    """The trial that confirmed the chosen rate; None where no rate was."""
    chosen = result["chosen"]
    wanted = (*(chosen[key] for key in SETTING), chosen["rps"])
    found = [one for one in result["trials"] if one["valid"] and one["purpose"] == "confirm" and _key(one) == wanted]
    return found[-1] if found else None


def spread(value: float, se: float | None, blocks: int, sure: float) -> tuple[float | None, float | None]:
    """An interval of a positive figure, each end as sure as asked: Student's t with so many blocks, on the logarithm."""
    if se is None:
        return None, None
    reach = math.exp(quantile(blocks, sure) * se)
    return value / reach, value * reach


def quantile(blocks: int, sure: float) -> float:
    """Student's, for a deviation that so many blocks tell."""
    return float(stdtrit(max(1, blocks - 1), sure))


def bootstrapped(series: Sequence[ArrayLike], shares: Sequence[float], blocks: int) -> list[float | None]:
    """The standard deviation of the logarithm of each percentile (0 to 100) of a series, or of the ratio of two of one length.

    None where too few lie beyond it.
    """
    rows = np.array(series, np.float64)
    size = rows.shape[1]
    known = [share for share in shares if size * min(share, 100 - share) / 100 >= BEYOND]
    if not known:
        return [None] * len(shares)
    places = [max(0, math.ceil(size * share / 100 - 1e-9) - 1) for share in known]
    draw, steps, found = np.random.default_rng(0), np.arange(math.ceil(size / blocks)), []
    for _ in range(0, DRAWS, AT_ONCE):
        begins = draw.integers(size, size=(AT_ONCE, blocks, 1))
        drawn = rows[:, ((begins + steps) % size).reshape(AT_ONCE, -1)[:, :size]]
        found.append(np.log(np.partition(drawn, places, axis=2)[:, :, places]))
    told = np.concatenate(found, axis=1)  # [series, draws, shares]
    deviations = (told[-1] - (told[0] if len(rows) > 1 else 0.0)).std(axis=0, ddof=1)
    by_share = dict(zip(known, deviations.tolist(), strict=True))
    return [by_share.get(share) for share in shares]


def together(then_ms: NDArray[np.float64], now_ms: NDArray[np.float64], seconds: float) -> dict[str, tuple[float | None, int]]:
    """Of two series with the same arrivals, the deviation of the logarithm of each percentile's ratio, and the blocks drawn."""
    capped = [_capped(one) for one in (then_ms, now_ms)]
    blocks = min(_blocks(one, seconds) for one in capped)
    return {
        name: (se, blocks) for name, se in zip(PERCENTILES, bootstrapped(capped, [*PERCENTILES.values()], blocks), strict=True)
    }


@cache
def trials_together(then: Path, now: Path, seconds: float) -> dict[str, tuple[float | None, int]] | None:
    """The same of two files of samples; None where one is not there, was not answered, or has other arrivals."""
    if not (then.is_file() and now.is_file()):
        return None
    one, other = read_measurement(then), read_measurement(now)
    answered = all(np.isfinite(each.latencies_ms).any() for each in (one, other))
    same = answered and np.array_equal(one.scheduled_s, other.scheduled_s)
    return together(one.latencies_ms, other.latencies_ms, seconds) if same else None


def _of_trial(trial: Trial, trials: Sequence[Trial], tune: Path, sure: float) -> dict[str, Any]:
    """Latencies and memory of one trial; `valid` and why it is not."""
    ours = [one["memory_mb"] for one in trials if _key(one)[:3] == _key(trial)[:3] and one.get("memory_mb")]
    memory = {"value": trial.get("memory_mb"), "low": min(ours, default=None), "high": max(ours, default=None)}
    latencies = _latencies(trial, tune, sure)
    told = {"samples_file": trial["samples_file"], "seconds": trial["seconds"]}
    return {**latencies, **told, "memory_mb": memory, "valid": trial["valid"], "invalid_reason": trial["invalid_reason"]}


def _latencies(trial: Trial, tune: Path, sure: float) -> dict[str, Any]:
    """Each percentile of a trial, by its samples where they are there."""
    file = tune / trial["samples_file"]
    late_ms = read_measurement(file).latencies_ms if file.is_file() else np.empty(0)
    if np.isfinite(late_ms).any():
        return percentiles(late_ms, trial["seconds"], sure)
    unknown = {"samples": trial["samples"], "se": None, "blocks": 0, "low": None, "high": None}
    return {name: {"value": trial[name], **unknown} for name in PERCENTILES}


def percentiles(late_ms: NDArray[np.float64], seconds: float, sure: float) -> dict[str, Any]:
    """Each percentile of latencies in the order they were due, in so many seconds; what was lost is infinite.

    One that is lost has no value, only `at_least`: what was lost counts as the latest answer there was.
    """
    capped, found = _capped(late_ms), {}
    blocks = _blocks(capped, seconds)
    for (name, share), se in zip(PERCENTILES.items(), bootstrapped([capped], [*PERCENTILES.values()], blocks), strict=True):
        at_least, lost = round(percentile(capped, share), 3), math.isinf(percentile(late_ms, share))
        low, high = spread(at_least, se, blocks, sure)
        value = {"value": None, "at_least": at_least} if lost else {"value": at_least}
        ends = {"low": _short(low), "high": None if lost else _short(high)}
        found[name] = {**value, **ends, "samples": late_ms.size, "se": _short(se), "blocks": blocks}
    return found


def _capped(late_ms: NDArray[np.float64]) -> NDArray[np.float64]:
    """What was lost is as late as the latest answer."""
    latest_ms = float(late_ms[np.isfinite(late_ms)].max())
    return np.clip(late_ms, None, latest_ms)


def _blocks(late_ms: NDArray[np.float64], seconds: float) -> int:
    """How many blocks a series is cut into: long ones, that hardly depend on each other, as far as that leaves enough."""
    fit = int(seconds / (BLOCK_LATENCIES * percentile(late_ms, 99) / 1e3))
    return min(max(fit, FEWEST), MOST, late_ms.size)


def _service_time(point: Mapping[str, Any], sure: float) -> dict[str, Any]:
    """The median time of a batch, by the batches that were measured, in their order."""
    rows = [sum(stages) for stages in point.get("stages_ms", ())]
    blocks = min(FEWEST, max(1, len(rows)))
    (se,) = bootstrapped([rows], [50], blocks)
    low, high = spread(point["p50_ms"], se, blocks, sure)
    shown = {"se": _short(se), "blocks": blocks, "low": _short(low), "high": _short(high)}
    return {"value": point["p50_ms"], "samples": point["samples"], **shown}


def _noise(result: Mapping[str, Any], tune: Path) -> dict[str, float] | None:
    """What the A/A pair differed by in each percentile, less what its own samples explain; at least that of a lower one."""
    if result["noise"] is None:
        return None
    one, other = (result["trials"][place - 1] for place in result["noise"]["trials"])
    ses = trials_together(tune / one["samples_file"], tune / other["samples_file"], one["seconds"]) or {}
    found, most = {}, 0.0
    for name in PERCENTILES:
        se, _ = ses.get(name, (None, 0))
        if se is not None and one[name] and other[name]:
            most = max(most, math.log(one[name] / other[name]) ** 2 - se**2)
        found[name] = round(most, 6)
    service = _service_noise(result["curve"], one, other)
    return found | {"service_ms": found["p50_ms"] if service is None else round(service, 6)}


def _service_noise(curve: Sequence[Mapping[str, Any]], *pair: Trial) -> float | None:
    """The same of the time in the worker, which no queue magnifies: less what the jitter of so many batches explains.

    None where the handler does not report its batches.
    """
    rows = [sum(row) for point in curve if point["batch"] == pair[0]["batch_size"] for row in point.get("stages_ms", ())]
    times = [float(sum((trial.get("stages_ms") or {}).values())) for trial in pair]
    if len(rows) < FEWEST or not all(times):
        return None
    batches = [float(trial["samples"] / trial["mean_batch"]) for trial in pair]
    explained = float(np.log(rows).var(ddof=1)) * sum(1 / count for count in batches)
    return max(0.0, math.log(times[0] / times[1]) ** 2 - explained)


def _limits(trials: Sequence[Trial], config: Mapping[str, Any], floor: float | None) -> dict[str, float | None]:
    """Between which rates the limit of a setting is: the highest that held for sure, and the lowest above that a trial refutes.

    Both with the A/A noise of a rate; None where that is not known, or where no trial was too fast.
    """
    if floor is None:
        return {"low": None, "high": None}
    ours = [one for one in trials if one["valid"] and _key(one)[:3] == tuple(config[key] for key in SETTING)]
    low = max([config["rps"], *(one["rps"] for one in ours if one["slo_met"])])
    missed = [one["rps"] for one in ours if one["slo_met"] is False and one["rps"] >= config["rps"]]
    return {"low": round(low / (1 + floor), 2), "high": round(min(missed) * (1 + floor), 2) if missed else None}


def _gain(gain: float | None, chosen: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, float | None]:
    low = chosen["low"] / default["high"] if gain and chosen["low"] and default["high"] else None
    high = chosen["high"] / default["low"] if gain and chosen["high"] and default["low"] else None
    return {"value": gain, "low": _short(low), "high": _short(high)}


def _told(trial: Trial | None) -> dict[str, Any] | None:
    """A trial's setting and load, as far as it tells them."""
    if trial is None or not trial.get("load"):
        return None
    return {**{key: trial[key] for key in SETTING}, **trial["load"]}


def _key(trial: Trial) -> tuple[Any, ...]:
    return (*(trial[key] for key in SETTING), trial["rps"])


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
