"""The strategy `predict`: the twin says where the best setting and its limit are, a few load tests say whether that is so.

Every trial is set beside what the twin says of the very same arrivals. Where the two are further apart than 15 %, the twin's
overheads are fitted anew to all that was seen, and the whole grid is predicted again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from marline.loadtest import percentile
from marline.tune._journal import Raw
from marline.tune._refit import Seen, refit
from marline.tune._service import Service
from marline.tune._setting import Setting
from marline.tune._trial import Trial
from marline.tune._twin import Prediction, play, predict

OFF = 0.15  # a prediction of p99 further from the measured one than this is not good enough
TIE = 0.01  # rates closer than this are equal: then fewer workers are better, less delay, smaller batches
BELOW, ABOVE = 0.9, 1.05  # of the predicted limit: where a setting is tried first, and next when that holds
HIGHER, LOWER = 1.1, 0.85  # of the highest rate that held, and of the lowest that did not, where the twin was wrong
CLOSE = 1.2  # a bracket this narrow needs no further trial
ARRIVALS = 20_000  # of a load whose latencies are predicted at one rate

Try = Callable[[Setting, float], Trial]


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
            return min(predicted, LOWER * self.high)
        return min(max(predicted, self.low), self.high)

    def next_rate(self, predicted: float) -> float | None:
        """Where the next trial says most; None where the limit is known well enough."""
        if self.low == 0:
            return BELOW * self.limit(predicted)
        if math.isinf(self.high):
            return max(ABOVE * predicted, HIGHER * self.low) if predicted < HIGHER * self.low else ABOVE * predicted
        return math.sqrt(self.low * self.high) if self.high > CLOSE * self.low else None


@dataclass
class Forecaster:
    """The twin and what it has learned; `told` is what it says now of every setting."""

    service: Service
    settings: Sequence[Setting]
    slo_ms: float
    percentile: float
    trusted: bool = True  # whether the twin's word counts where nothing was measured, as the strategy `predict` has it
    told: dict[Setting, Prediction] = field(default_factory=dict)
    compared: list[dict[str, Any]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    bounds: dict[Setting, Bounds] = field(default_factory=dict)
    measured_ms: dict[tuple[Setting, float], float] = field(default_factory=dict)  # the percentile, by setting and wished rate

    def __post_init__(self) -> None:
        self._predict()

    def limit_rps(self, setting: Setting) -> float:
        """The highest rate within the objective, as predicted and corrected by what was seen; 0 where there is none."""
        bounds = self.bounds.get(setting, Bounds())
        return bounds.limit(self.told[setting].rps) if self.trusted else bounds.low

    def next_rate(self, setting: Setting) -> float | None:
        """Where the next trial of a setting says most; None where its limit is known well enough."""
        return self.bounds.get(setting, Bounds()).next_rate(self.told[setting].rps)

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

    def latency_ms(self, setting: Setting, rps: float) -> float:
        """The percentile of the objective at a stated rate, as measured or else as predicted."""
        if (setting, rps) in self.measured_ms:
            return self.measured_ms[setting, rps]
        if not self.trusted:
            return math.inf
        arrivals_s = np.cumsum(np.random.default_rng(0).exponential(1 / rps, ARRIVALS))
        return percentile(play(self.service, setting, arrivals_s).latencies_ms, self.percentile)

    def worth(self, setting: Setting, ratio: float) -> float:
        """The share of a setting's rate that a factor on latency is worth: what more it would carry were that allowed."""
        (more,) = predict(self.service, [setting], self.slo_ms * ratio, self.percentile)
        rps = self.told[setting].rps
        return min(1.0, more.rps / rps - 1) if rps else 0.0

    def learn(self, trial: Trial, raw: Raw, rps: float) -> None:
        """Set a trial at the wished rate `rps` beside the twin's word for it; fit the twin anew where that was wrong."""
        self.bounds.setdefault(trial.setting, Bounds()).learn(rps, held=trial.within(self.slo_ms))
        broken = not trial.valid or trial.limit is not None
        self.measured_ms[trial.setting, rps] = math.inf if broken else trial.at_percentile_ms
        if trial.too_large:
            self.settings = [one for one in self.settings if not _is_as_large(one, trial.setting)]
        if not trial.valid:
            return
        arrivals_s = raw.measured.scheduled_s
        played = play(self.service, trial.setting, arrivals_s)
        predicted = {f"p{p}_ms": percentile(played.latencies_ms, p) for p in (50, 99)}
        self.compared.append(_compared(trial, predicted, played.mean_batch))
        self.seen.append(Seen(trial.setting, arrivals_s, raw.measured.latencies_ms, raw.batches))
        if self.trusted and not abs(trial.p99_ms / predicted["p99_ms"] - 1) <= OFF:
            self.service = refit(self.service, self.seen)
            self._predict()

    def predictions(self) -> list[dict[str, Any]]:
        """What the twin says now of every setting's limit, for result.json."""
        return [
            asdict(setting)
            | {"rps": round(told.rps, 2), "p99_ms": _rounded(told.p99_ms), "mean_batch": round(told.mean_batch, 2)}
            for setting, told in self.told.items()
        ]

    def _predict(self) -> None:
        found = predict(self.service, self.settings, self.slo_ms, self.percentile)
        self.told |= {one.setting: one for one in found}


def look_for_rate(forecast: Forecaster, run: Try, steps: int, in_time: Callable[[], bool]) -> int:
    """Try the most promising setting until its limit is known, then once the best of another kind; returns the trials it took.

    Which is the most promising follows what is seen. The first trial is made whatever the time.
    """
    for turn in range(steps):
        ranked = forecast.by_rate()
        if not ranked or (turn and not in_time()):
            return turn
        setting = ranked[0]
        rate = forecast.next_rate(setting)
        if rate is None:
            rival = rival_of(ranked)
            if rival is None or rival in forecast.bounds:
                return turn
            setting, rate = rival, BELOW * forecast.limit_rps(rival)
        run(setting, rate)
    return steps


def look_at_rate(forecast: Forecaster, rps: float, *, cheapest: bool, run: Try, steps: int, in_time: Callable[[], bool]) -> int:
    """Try the best setting at one rate until the one that is best has been tried, then the best of another kind; see above."""
    for turn in range(steps):
        ranked = forecast.by_latency(rps, cheapest=cheapest)
        untried = [one for one in ranked if (one, rps) not in forecast.measured_ms]
        if not untried or (turn and not in_time()):
            return turn
        rival = rival_of(ranked)
        if ranked[0] in untried:
            run(ranked[0], rps)
        elif rival in untried:
            run(rival, rps)
        else:
            return turn
    return steps


def rival_of(ranked: Sequence[Setting]) -> Setting | None:
    """The best that differs from the first in more than the delay, which hardly ever decides."""
    first = ranked[0]
    return next((one for one in ranked if (one.batch_size, one.workers) != (first.batch_size, first.workers)), None)


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
