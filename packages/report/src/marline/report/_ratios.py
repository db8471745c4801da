"""One metric of two runs: both figures, their ratio with its interval, or why they cannot be compared."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from marline.report._metrics import PERCENTILES, quantile, trials_together

Report = Mapping[str, Any]
Figure = Mapping[str, Any]
DRIFT = 0.03  # of what a machine carries, at least: half a minute of an A/A pair does not show what two sessions differ by
NO_NOISE = "of neither run two trials of the same were valid, so how much measurements vary is not known"


@dataclass(frozen=True, slots=True)
class Pair:
    """A metric of this run and of the one it is compared with (None: of this one alone)."""

    now: Figure
    then: Figure | None = None
    noise: float | None = 0.0  # between two trials of the same, as a variance of the logarithm; None where it is not known
    problem: str | None = None  # why there is nothing to compare
    is_invalid: bool = False  # whether that is a measurement of this run that failed
    together: tuple[float | None, int] | None = None  # the ratio's own deviation, and blocks, of trials with the same arrivals

    def ratio(self, sure: float) -> tuple[float | None, float, float]:
        """Now over then (of this run alone: its own figure), and both ends of its interval, each as sure as asked.

        An end that is not known is 0 or infinite; a value that was lost is None, and only above something.
        """
        then = self.then or {"value": 1.0, "low": 1.0, "high": 1.0, "se": 0.0, "blocks": math.inf}
        value = None if self.now["value"] is None else self.now["value"] / then["value"]
        if "se" not in self.now:
            low, high = self.now["low"], self.now["high"]
            below = low / then["high"] if low is not None and then["high"] else 0.0
            return value, below, high / then["low"] if high is not None and then["low"] else math.inf
        ses, blocks = (self.now["se"], then["se"]), min(self.now["blocks"], then["blocks"])
        if self.together is not None:
            ses, blocks = (self.together[0], 0.0), self.together[1]
        if self.noise is None or None in ses:
            return value, 0.0, math.inf
        reach = math.exp(quantile(blocks, sure) * math.sqrt(ses[0] ** 2 + ses[1] ** 2 + self.noise))
        if value is None:
            return None, self.now["at_least"] / then["value"] / reach, math.inf
        return value, value / reach, value * reach


def pair(metric: str, now: Report, then: Report | None) -> Pair:
    """A metric of two runs, latencies at the rate that the earlier one confirmed; of one run alone at its own."""
    ours, theirs = now["metrics"], None if then is None else then["metrics"]
    if metric in PERCENTILES:
        found = _latency(metric, ours, theirs)
        if found.noise is not None:
            found = replace(found, noise=found.noise + _magnified(then or now, ours, theirs) ** 2)
        return found if found.then is None or then is None else _drawn_together(metric, found, now, then)
    if metric in {"t1_ms", "batch_ms"}:
        size = str(1 if metric == "t1_ms" else (then or now)["chosen"]["batch_size"])
        here, there = ours["curve_ms"].get(size), None if theirs is None else theirs["curve_ms"].get(size)
        if here is None or (theirs is not None and there is None):
            return Pair({}, problem=f"batches of {size} are not in both service curves", is_invalid=True)
        return Pair(here, there, _noise("service_ms", ours, theirs))
    if metric == "memory_mb" and theirs is not None and ours["baseline"] is not None:
        ours = ours["baseline"]  # of the same setting
    here, there = ours.get(metric), None if theirs is None else theirs.get(metric)
    if here is None or here["value"] is None:
        return Pair({}, problem=f"{metric} of this run is not known", is_invalid=True)
    if theirs is not None and not (there and there["value"]):
        return Pair({}, problem=f"{metric} of the baseline is not known")
    return Pair(here, there)


def _latency(metric: str, ours: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> Pair:
    """At one load in both runs: the one that the earlier run was confirmed by, and this one has sent again."""
    if theirs is None:
        return Pair(ours[metric], None, _noise(metric, ours, None)) if metric in ours else _invalid("no rate was confirmed")
    if metric not in theirs or theirs["load"] is None or theirs[metric]["value"] is None:
        return Pair({}, problem="the baseline confirmed no rate, lost more than that allows, or does not say by which load")
    again = ours["baseline"]
    if again is None or again["load"] != theirs["load"]:
        return _invalid(f"this run has not sent the load of {theirs['load']['rps']:.4g} requests/s that was confirmed there")
    if not again["valid"]:
        return _invalid(f"the trial at the baseline's load: {again['invalid_reason']}")
    if again[metric]["value"] is None and "at_least" not in again[metric]:
        return _invalid("no request was answered at the baseline's load")
    return Pair(again[metric], theirs[metric], _noise(metric, ours, theirs))


def _magnified(report: Report, ours: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> float:
    """What the noise of a rate is as a factor on latency (its logarithm) at the load that is compared: near the limit, much.

    Waiting grows as 1 / (1 - busy), so a share of capacity counts busy / (1 - busy) times. Busy is rate x t(B) / (B x workers),
    at most 0.95, with t of the smallest size measured from B on; 0 where none was.
    """
    load, curve = report["metrics"].get("load"), report["metrics"]["curve_ms"]
    sizes = [int(size) for size in curve if load is not None and int(size) >= load["batch_size"]]
    if load is None or not sizes:
        return 0.0
    batches_per_ms = load["rps"] / load["batch_size"] / load["workers"] / 1e3
    busy = min(0.95, batches_per_ms * curve[str(min(sizes))]["value"])
    floors = [(one or {}).get("rate_noise") or 0.0 for one in (ours, theirs)]
    return float(busy / (1 - busy) * max(DRIFT, *floors))


def _drawn_together(metric: str, found: Pair, now: Report, then: Report) -> Pair:
    """With the deviation of the ratio, by the samples of both trials: drawn one by one, they are too sure of themselves."""
    ours, theirs = now["metrics"]["baseline"], then["metrics"]
    both = trials_together(
        then["tune_folder"] / theirs["samples_file"], now["tune_folder"] / ours["samples_file"], ours["seconds"]
    )
    if both is None:
        return Pair({}, problem="the samples of the baseline's trial are not there, or have other arrivals")
    return replace(found, together=both[metric])


def _invalid(why: str) -> Pair:
    return Pair({}, problem=why, is_invalid=True)


def _noise(metric: str, ours: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> float | None:
    """What the A/A pairs say, the larger one; of a batch's time that of p50 in a report from before it was told."""
    pairs = [one["noise"] for one in (ours, theirs) if one is not None and one["noise"] is not None]
    known = [noise[metric if metric in noise else "p50_ms"] for noise in pairs]
    return max(known, default=None)
