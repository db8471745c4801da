"""What the strategy `predict` knows: the twin says where the limit of each setting is, a few load tests say whether that is so.

Every trial is set beside what the twin says of the very same arrivals. Where their tails are further apart than 15 %, the twin
is fitted anew to all that was seen, and the whole grid is predicted again.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marline.loadtest import Load, arrival_times, percentile
from marline.tune._journal import Raw
from marline.tune._refit import Seen, agrees, refit, tail
from marline.tune._service import Service
from marline.tune._setting import Setting
from marline.tune._trial import Trial
from marline.tune._twin import Prediction, at_rate, play, predict

TIE = 0.01  # rates closer than this are equal: then fewer workers are better, less delay, smaller batches
BELOW, ABOVE = 0.9, 1.05  # of the predicted limit: where a setting is tried first, and next when that holds
HIGHER, BARELY = 1.1, 0.97  # of the highest rate that held, and of the lowest that did not, where the twin was wrong
CONFIRM_AT = 0.92  # of a limit is what may be promised: what is found best of several was lucky, too
CAREFUL = 0.85  # of the objective: a p99 measured again, near the limit, differs by as much
RARER = 3  # times fewer requests than may be late: where a batch stalls now and then, late ones come many at once
PLAYED = 3  # simulations, of which the worst is believed: of stalls that are rare one draws too few
FEW = 1000  # batches, with fewer of which a low p99 may be luck: requests of one are late together
REACH = 1.5  # times the highest rate that was tried: how far a correction upwards is believed
NEAR = 0.95  # of the predicted limit: what holds there leaves little to look for
HALF, IDLE = 0.5, 0.05  # of the lowest rate that missed, where nothing holds; and of a saturated server: it is idle there
CLOSE = 1.2  # a bracket this narrow needs no further trial
HELD = 0.85  # of the predicted limit: what held there can be confirmed
ARRIVALS = 20_000  # of a load whose latencies are predicted at one rate


@dataclass
class Bounds:
    """What trials said of the limit of one setting: the highest rate that held and the lowest that did not."""

    low: float = 0.0
    high: float = math.inf

    def learn(self, rate: float, *, held: bool) -> None:
        """A trial at a rate; where one contradicts an earlier one, the later is believed."""
        if held:
            self.low, self.high = max(self.low, rate), self.high if self.high > rate else math.inf
        else:
            self.high, self.low = min(self.high, rate), self.low if self.low < rate else 0.0

    def limit(self, predicted: float) -> float:
        """The predicted limit, corrected by what was seen."""
        if self.low == 0 and math.isfinite(self.high):
            return min(predicted, BARELY * self.high)
        return min(max(predicted, self.low), self.high)

    def next_rate(self, predicted: float) -> float | None:
        """Where the next trial says most; None where the limit is known well enough."""
        if self.low == 0:
            return BELOW * self.limit(predicted)
        if math.isinf(self.high):
            return None if NEAR * predicted <= self.low <= predicted else max(ABOVE * predicted, HIGHER * self.low)
        return math.sqrt(self.low * self.high) if self.high > CLOSE * self.low else None


@dataclass
class Forecaster:
    """The twin and what it has learned; `told` is what it says now of every setting."""

    service: Service
    settings: Sequence[Setting]
    slo_ms: float
    percentile: float
    gaps: NDArray[np.float64] | None = None  # between arrivals of another process than Poisson's, in any unit
    trusted: bool = True  # whether the twin's word counts where nothing was measured, as the strategy `predict` has it
    told: dict[Setting, Prediction] = field(default_factory=dict)
    compared: list[dict[str, Any]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    bounds: dict[Setting, Bounds] = field(default_factory=dict)
    ceiling_rps: float = math.inf  # what can be measured here, of any setting: the sender shares the machine with the server
    off: dict[Setting, float] = field(default_factory=dict)  # what is left of the twin's error: measured over predicted tail
    measured_ms: dict[tuple[Setting, float], float] = field(default_factory=dict)  # the percentile, by setting and wished rate
    measured: Service = field(init=False)  # as it was before any trial changed what the twin believes

    def __post_init__(self) -> None:
        self.measured = self.service
        self._predict()

    def limit_rps(self, setting: Setting) -> float:
        """The highest rate within the objective, as predicted and corrected by what was seen; 0 where there is none."""
        bounds = self.bounds.get(setting, Bounds())
        return min(self.ceiling_rps, bounds.limit(self.told[setting].rps)) if self.trusted else bounds.low

    def safe_rps(self, setting: Setting) -> float:
        """A rate to promise: below the limit, and where the twin leaves room for what a trial did not meet, if it does at any.

        Latency is a little below the objective there, and few requests are late. What raises neither: a short trial that
        held beyond the twin's limit, where a queue had no time to grow, and a tail lower than the twin's, which met few stalls.
        """
        limit_rps = self.limit_rps(setting)
        if not (self.trusted and limit_rps):
            return CONFIRM_AT * limit_rps
        safe_rps = CONFIRM_AT * min(limit_rps, self.told[setting].rps or math.inf)
        slo_ms, rarer = self.slo_ms / max(1.0, self.off.get(setting, 1.0)), 100 - (100 - self.percentile) / RARER
        demands = [*product(((CAREFUL * slo_ms, self.percentile), (slo_ms, rarer)), range(PLAYED))]
        if all(
            at_rate(self.service, setting, safe_rps, percentile_, gaps=self.gaps, seed=seed).tail_ms <= objective_ms
            for (objective_ms, percentile_), seed in demands
        ):
            return safe_rps
        careful_rps = min(self._limit(setting, *demand, seed).rps for demand, seed in demands)
        return min(safe_rps, careful_rps or math.inf)

    def next_rate(self, setting: Setting) -> float | None:
        """Where the next trial of a setting says most; None where its limit is known well enough."""
        bounds = self.bounds.get(setting, Bounds())
        rate = bounds.next_rate(self.told[setting].rps)
        return None if rate is None or (bounds.low and rate > self.ceiling_rps) else min(rate, BELOW * self.ceiling_rps)

    def is_confirmable(self, setting: Setting) -> bool:
        """Whether a rate near a setting's limit has held, of itself or of one that differs in the delay alone."""
        held = [bounds.low for one, bounds in self.bounds.items() if one.kind == setting.kind]
        return max(held, default=0.0) >= HELD * self.limit_rps(setting)

    def lower(self) -> tuple[Setting, float] | None:
        """A setting that missed the objective at its lowest rate so far, and a lower one; None where that would say little."""
        missed = {one: bounds.high for one, bounds in self.bounds.items() if bounds.low == 0 and one in self.told}
        rates = {one: HALF * high for one, high in missed.items() if HALF * high >= IDLE * self.told[one].saturated_rps}
        return max(rates.items(), key=lambda entry: (entry[1], entry[0]), default=None)

    def by_rate(self) -> list[Setting]:
        """Settings that carry anything, the one that carries most first."""
        able = {one: rps for one in self.settings if (rps := self.limit_rps(one)) > 0}
        ranked: list[Setting] = []
        while able:
            most = max(able.values())
            equal = [one for one, rps in able.items() if rps >= (1 - TIE) * most]
            ranked.append(min(equal, key=lambda one: (one.workers, one.max_batch_delay_ms, one.batch_size)))
            del able[ranked[-1]]
        return ranked

    def by_latency(self, rps: float, *, cheapest: bool) -> list[Setting]:
        """Settings within the objective at a stated rate, the quickest first; `cheapest`: those with fewest workers first."""
        found = {one: self.latency_ms(one, rps) for one in self.settings}
        able = [one for one, latency in found.items() if latency <= self.slo_ms]
        return sorted(able, key=lambda one: (one.workers if cheapest else 0, found[one], one))

    def nearest(self, rps: float) -> Setting:
        """The setting with the least latency at a stated rate, or of those without any the one that answers most."""
        return min(self.settings, key=lambda one: (self.latency_ms(one, rps), -self.told[one].saturated_rps))

    def latency_ms(self, setting: Setting, rps: float) -> float:
        """The percentile of the objective at a stated rate, as measured or else as predicted."""
        if (setting, rps) in self.measured_ms:
            return self.measured_ms[setting, rps]
        if not self.trusted:
            return math.inf
        gaps = np.random.default_rng(0).standard_exponential(ARRIVALS) if self.gaps is None else self.gaps
        arrivals_s = np.cumsum(gaps / gaps.mean() / rps)
        return percentile(play(self.service, setting, arrivals_s).latencies_ms, self.percentile)

    def worth(self, setting: Setting, ratio: float) -> float:
        """The share of a setting's rate that a factor on latency is worth: what more it would carry were that allowed."""
        least, more = self._limit(setting, self.slo_ms).rps, self._limit(setting, self.slo_ms * ratio).rps
        return min(1.0, more / least - 1) if least else 1.0

    def learn(self, trial: Trial, raw: Raw, load: Load, *, fit: bool = True) -> None:
        """Set a trial of a load beside the twin's word for the same; `fit` the twin anew where that was wrong."""
        if trial.too_large:
            self.settings = [one for one in self.settings if not _is_as_large(one, trial.setting)]
        if not trial.valid:  # it says nothing about the server
            return
        self.bounds.setdefault(trial.setting, Bounds()).learn(load.rps, held=trial.within(self.slo_ms))
        self.measured_ms[trial.setting, load.rps] = trial.at_percentile_ms if trial.limit is None else math.inf
        arrivals_s, latencies_ms = arrival_times(load), raw.measured.latencies_ms
        one = Seen(trial.setting, arrivals_s, latencies_ms, raw.batches, arrivals_s.size - latencies_ms.size)
        played_ms, mean_batch = one.played(self.service)
        self.compared.append(_compared(trial, {f"p{p}_ms": percentile(played_ms, p) for p in (50, 99)}, mean_batch))
        if not (fit and self.trusted):
            return
        self.seen.append(one)
        if not agrees(self.service, one):
            self.service = refit(self.service, self.seen)
            self._predict()
            for setting in {one.setting for one in self.seen}:
                self._correct(setting)
        else:
            self._correct(trial.setting)

    def _correct(self, setting: Setting) -> None:
        """What is left of the error, of one setting: its limit is predicted for an objective so much lower or higher.

        Latency far below a limit says little of where it is, and a low tail of few requests may be luck: a correction upwards
        goes only so far beyond what was tried, and of few batches it is believed in part.
        """
        tried = [one for one in self.seen if one.setting == setting]
        seen = [self._off(one) for one in tried]
        known = [math.log(ratio) for ratio, _ in seen if 0 < ratio < math.inf]
        twin = self._limit(setting, self.slo_ms)
        self.off.pop(setting, None)
        if not known or not twin.rps:
            return
        off = math.exp(sum(known) / len(known))
        if off < 1:
            off **= min(1.0, sum(batches for _, batches in seen) / FEW)
        self.off[setting] = off
        found = self._limit(setting, self.slo_ms / off)
        most = max(twin.rps, REACH * max(one.rps for one in tried))
        if found.rps > most:
            told = at_rate(self.service, setting, most, self.percentile, gaps=self.gaps)
            found = Prediction(setting, most, told.p50_ms, told.p99_ms, told.tail_ms, told.mean_batch, found.saturated_rps)
        p50_ms, p99_ms, tail_ms = (off * ms for ms in (found.p50_ms, found.p99_ms, found.tail_ms))
        self.told[setting] = replace(found, p50_ms=p50_ms, p99_ms=p99_ms, tail_ms=tail_ms)

    def _limit(self, setting: Setting, slo_ms: float, percentile_: float | None = None, seed: int = 0) -> Prediction:
        return predict(self.service, [setting], slo_ms, percentile_ or self.percentile, gaps=self.gaps, seed=seed)[0]

    def _off(self, one: Seen) -> tuple[float, float]:
        """The percentile of a trial (or its tail, where lower), measured over predicted, and of how many batches.

        Infinite where requests were lost.
        """
        p, (played_ms, mean_batch) = min(self.percentile, tail(one.latencies_ms.size)), one.played(self.service)
        return percentile(one.latencies_ms, p) / percentile(played_ms, p), one.latencies_ms.size / mean_batch

    def predictions(self) -> list[dict[str, Any]]:
        """What the twin says now of every setting's limit, for result.json."""
        return [
            asdict(setting)
            | {"rps": round(told.rps, 2), "p99_ms": _rounded(told.p99_ms), "mean_batch": round(told.mean_batch, 2)}
            for setting, told in self.told.items()
        ]

    def _predict(self) -> None:
        found = predict(self.service, self.settings, self.slo_ms, self.percentile, gaps=self.gaps)
        self.told |= {one.setting: one for one in found}


def _is_as_large(one: Setting, other: Setting) -> bool:
    """Whether one setting takes at least the memory of another."""
    return one.batch_size >= other.batch_size and one.workers >= other.workers


def _compared(trial: Trial, predicted: dict[str, float], mean_batch: float) -> dict[str, Any]:
    """One row of predicted against measured; infinite latencies, of requests that were lost, are null."""
    told = trial.as_json()
    kept = {key: told[key] for key in ("batch_size", "max_batch_delay_ms", "workers", "offered_rps")}
    shown = {key: _rounded(value) for key, value in predicted.items()}
    return kept | {
        "predicted": shown | {"mean_batch": round(mean_batch, 2)},
        "measured": {key: told[key] for key in ("p50_ms", "p99_ms", "mean_batch")},
    }


def _rounded(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None
