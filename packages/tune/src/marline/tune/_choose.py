"""What is chosen: a strategy looks, longer trials confirm, and nothing is promised that was not measured."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from marline.tune._devices import NO_GPU, Devices
from marline.tune._explain import lower_bound, nothing_better
from marline.tune._look import look_at_rate, look_for_rate, rival_of
from marline.tune._noise import Noise, pair
from marline.tune._optuna import tpe
from marline.tune._predict import Forecaster
from marline.tune._runner import CONFIRM_SHARE, Runner
from marline.tune._search import FIRST, calibration, capacity_rps, climb, default_of, search
from marline.tune._setting import Setting
from marline.tune._trial import Trial
from marline.tune._values import Tuned, tuned_archive

PAIR_AT = 0.8  # of the default's predicted limit: well below it nothing differs, at it everything does
UNLOADED = 0.5  # of the saturated rate, where the default has no limit within the objective
SLOWER = 0.75  # of a rate that was invalid twice: what this machine can perhaps measure, of any setting
BETTER = 1.05  # what the second candidate's rate must be above the first one's to be worth a confirmation
KEYS = ("batch_size", "max_batch_delay_ms", "workers", "rps", "p50_ms", "p95_ms", "p99_ms", "samples", "slo_met")
NO_NOISE = "no two trials of the same were valid, so how much this machine's measurements vary is not known"


@dataclass(frozen=True, slots=True)
class Choice:
    """The default, the chosen setting and the next best, each as the report's CONFIG, and what must be said about them."""

    setting: Setting
    default: dict[str, Any]
    chosen: dict[str, Any]
    runner_up: dict[str, Any] | None
    noise: Noise | None
    gain: float | None  # chosen over default, see `Chooser._gain`
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class Chooser:
    """One tuning run: what runs the trials, the archive they are of, the twin, and the GPUs where they are what serves.

    `threads` had each worker, where several numbers of workers shared one processor; as many it keeps when it is served.
    """

    runner: Runner
    archive: Path
    forecast: Forecaster
    devices: Devices = NO_GPU
    threads: int | None = None

    def choose(self) -> Choice:
        """Measure the noise, look for candidates, confirm the default and the best, each by a longer trial."""
        default = default_of(self.runner.bench.tune)
        noise = self._noise(default)
        candidates = [one for one in self._look(default) if one != default]
        in_time = self.runner.in_time_from_now(CONFIRM_SHARE)
        usual = self._confirm_default(default, in_time)
        best = self._confirm_best(candidates, usual, noise, in_time)
        found = best or usual
        warnings = [*([] if noise else [NO_NOISE]), *self.runner.interrupted()]
        if best is None:
            warnings.insert(0, nothing_better(self.runner, usual, noise))
        elif usual is None:
            held = "no rate" if self._at_rps is None else f"{self._at_rps:g} req/s not"
            warnings.insert(0, f"TorchServe's default held {held} within {self._slo_ms:g} ms, so no gain can be stated")
        if self._at_rps is None:
            limits = self.forecast.limit_rps if self.forecast.trusted else None
            warnings += lower_bound(self.runner, "TorchServe's default", usual, limits) if best else []
            warnings += lower_bound(self.runner, "the chosen one", best, limits) if best else []
        setting = found.setting if found else default
        return Choice(
            setting=setting,
            default=self._config(default, usual),
            chosen=self._config(setting, found),
            runner_up=self._runner_up({default, setting}),
            noise=noise,
            gain=self._gain(usual, found),
            warnings=warnings,
        )

    def tuned_archive(self, setting: Setting) -> Tuned:
        """The archive that asks for a setting itself."""
        service, out, slo_ms = self.forecast.measured, self.runner.bench.out, self._slo_ms
        fewer = self.threads if setting.workers < max(self.runner.bench.tune.workers) else None
        return tuned_archive(
            self.archive,
            setting,
            service.points,
            slo_ms,
            out,
            shared=service.shared,
            devices=self.devices,
            threads=fewer,
        )

    @property
    def _slo_ms(self) -> float:
        return self.runner.bench.slo_ms

    @property
    def _at_rps(self) -> float | None:
        config = self.runner.bench.tune
        return config.at_rps if config.objective != "rate" else None

    def _once(self, setting: Setting, rps: float, purpose: str = "search") -> Trial:
        """A trial that the twin learns from."""
        trial = self.runner.run(self.archive, setting, rps, purpose)
        self.forecast.learn(trial, self.runner.raw[-1], self.runner.loads[-1])
        return trial

    def _try(self, setting: Setting, rps: float) -> Trial:
        """A trial, once more where it was invalid: that says nothing about the server."""
        trial = self._once(setting, rps)
        if trial.valid:
            return trial
        again = self._once(setting, rps)
        if not again.valid:
            measured = max((one.offered_rps for one in self.runner.trials if one.valid), default=0.0)
            self.forecast.ceiling_rps = max(measured, min(self.forecast.ceiling_rps, SLOWER * rps))
        return again

    def _noise(self, default: Setting) -> Noise | None:
        """The A/A pair, at a load of the default that is also a first trial of it."""
        told = self.forecast.told[default]
        rps = PAIR_AT * told.rps or UNLOADED * told.saturated_rps
        if self._at_rps is not None and self._at_rps <= told.rps:
            rps = self._at_rps
        return pair(partial(self._once, default, rps, "noise"), self.runner.trials, partial(self.forecast.worth, default))

    def _look(self, default: Setting) -> list[Setting]:
        """Let the strategy try what it wants; the settings that carry something, the best first."""
        config = self.runner.bench.tune
        {"predict": self._predict, "grid": self._grid, "optuna": self._optuna}[config.strategy](default)
        if self._at_rps is None:
            return self.forecast.by_rate()
        return self.forecast.by_latency(self._at_rps, cheapest=config.objective == "cost")

    def _predict(self, _: Setting) -> None:
        config, runner = self.runner.bench.tune, self.runner
        if self._at_rps is not None:
            cheapest = config.objective == "cost"
            look_at_rate(
                self.forecast, self._at_rps, cheapest=cheapest, run=self._try, steps=config.steps, in_time=runner.in_time
            )
            return
        look_for_rate(self.forecast, self._try, config.steps, runner.in_time)

    def _grid(self, default: Setting) -> None:
        """Every setting, and the default last: Java has compiled its hot paths by then, which it had not for the first ones."""
        config, runner = self.runner.bench.tune, self.runner
        others = [one for one in self.forecast.settings if one != default]
        if self._at_rps is not None:
            for setting in [*others, default]:
                self._try(setting, self._at_rps)
            return
        curve, slo_ms = self.forecast.service.points, self._slo_ms
        best = search(others, curve, slo_ms, config.steps, self._once, in_time=runner.in_time)
        begin_rps = FIRST * capacity_rps(curve, default) * calibration(best, curve)
        climb(default, begin_rps, slo_ms, config.steps, 0.0, self._once, in_time=runner.in_time_from_now())

    def _optuna(self, default: Setting) -> None:
        """As many trials as the budget allows, `tune.steps` at least and a grid's at most; then the default's own."""
        config, runner = self.runner.bench.tune, self.runner
        capacity = {one: self.forecast.told[one].saturated_rps for one in self.forecast.settings}
        if not capacity:  # not even the default is within the limit of memory
            return
        tpe(
            capacity,
            self._value,
            self._at_rps,
            config.steps * len(capacity),
            self._try,
            seed=runner.bench.loadtest.seed,
            in_time=lambda: runner.in_time() or len(runner.trials) < config.steps,
        )
        if self._at_rps is not None:
            self._try(default, self._at_rps)
        else:
            first = max(FIRST * self.forecast.told[default].saturated_rps, self.forecast.limit_rps(default))
            climb(default, first, self._slo_ms, config.steps, 0.0, self._once, in_time=runner.in_time_from_now())

    def _value(self, trial: Trial) -> float:
        """What a black-box search maximises: the objective, less than anything within the SLO where a trial is not."""
        if not trial.within(self._slo_ms):
            return -1e6
        if self._at_rps is None:
            return trial.offered_rps
        return -trial.at_percentile_ms - (1e4 * trial.setting.workers if self.runner.bench.tune.objective == "cost" else 0.0)

    def _confirm_default(self, default: Setting, in_time: Callable[[], bool]) -> Trial | None:
        safe, at = self.forecast.safe_rps(default), self._at_rps
        if at is not None and self.forecast.latency_ms(default, at) > self._slo_ms:
            if (default, at) in self.forecast.measured_ms:
                return None
            self._try(default, at)  # what is said of the default is measured, not predicted
            if self.forecast.latency_ms(default, at) > self._slo_ms:
                return None
        return self._confirm(self.tuned_archive(default).file, default, safe, 0.0, in_time) if safe or self._at_rps else None

    def _confirm_best(
        self, candidates: Sequence[Setting], usual: Trial | None, noise: Noise | None, in_time: Callable[[], bool]
    ) -> Trial | None:
        """The first candidate that a longer trial, as the tuned archive, shows to be better than the default beyond the noise.

        The best of another kind has its chance where the first turns out to carry less and there is time; at one rate, where
        the first does not hold it, also the best with each other number of workers.
        """
        best: Trial | None = None
        for setting in finalists(candidates, every_number=self._at_rps is not None):
            safe = self.forecast.safe_rps(setting)
            least = BETTER * best.offered_rps if best else usual.offered_rps * (1 + _floor(noise)) if usual else 0.0
            if self._at_rps is None and (safe <= least or not (setting == candidates[0] or in_time())):
                continue
            if self._at_rps is not None and best is not None:
                break
            to_beat = least if self._at_rps is None else 0.0
            trial = self._confirm(self.tuned_archive(setting).file, setting, safe, to_beat, in_time)
            if trial is not None and (self._at_rps is None or self._is_better(trial, usual, noise)):
                best = trial
        return best

    def _is_better(self, trial: Trial, usual: Trial | None, noise: Noise | None) -> bool:
        """At one rate: fewer workers where cost counts, else less latency than the default's by more than the noise."""
        if usual is None:
            return True
        if self.runner.bench.tune.objective == "cost" and trial.setting.workers != usual.setting.workers:
            return trial.setting.workers < usual.setting.workers
        return trial.at_percentile_ms * ((noise.tail if noise else None) or 1.0) < usual.at_percentile_ms

    def _gain(self, usual: Trial | None, found: Trial | None) -> float | None:
        """Chosen over default: of rates, or by `tune.objective` of latencies or workers the other way round."""
        if usual is None or found is None:
            return None
        pairs = {
            "rate": (found.offered_rps, usual.offered_rps),
            "latency": (usual.at_percentile_ms, found.at_percentile_ms),
            "cost": (usual.setting.workers, found.setting.workers),
        }
        more, less = pairs[self.runner.bench.tune.objective]
        return round(more / less, 3)

    def _confirm(
        self, archive: Path, setting: Setting, safe_rps: float, to_beat_rps: float, in_time: Callable[[], bool]
    ) -> Trial | None:
        runner, forecast = self.runner, self.forecast

        def learned(trial: Trial) -> float:
            """What a trial that missed has shown says where the next one may hold."""
            forecast.learn(trial, runner.raw[-1], runner.loads[-1], fit=not runner.holds(trial))
            return forecast.safe_rps(setting) or math.inf

        return runner.confirm(archive, setting, safe_rps, to_beat_rps, at_rps=self._at_rps, in_time=in_time, learned=learned)

    def _config(self, setting: Setting, confirmed: Trial | None) -> dict[str, Any]:
        """The report's CONFIG; rate 0 and the last trial's figures where no rate was within the objective."""
        trial = confirmed or next(one for one in reversed(self.runner.trials) if one.setting == setting)
        told = trial.as_json()
        found = {key: told[key] for key in KEYS}
        judged = any(one.valid for one in self.runner.trials if one.setting == setting)
        return found if confirmed else {**found, "rps": 0.0, "slo_met": False if judged else None}

    def _runner_up(self, others: set[Setting]) -> dict[str, Any] | None:
        """The best trial of any setting but the default and the chosen one; None where none was within the objective."""
        within = [one for one in self.runner.trials if one.within(self._slo_ms) and one.setting not in others]
        if not within:
            return None
        best = max(within, key=lambda one: one.offered_rps if self._at_rps is None else -one.at_percentile_ms)
        return self._config(best.setting, best)


def finalists(candidates: Sequence[Setting], *, every_number: bool) -> list[Setting]:
    """The first of the ranked candidates and the best of another kind; or else the best with `every_number` of workers, too."""
    if not candidates:
        return []
    rival = rival_of(candidates)
    firsts = {one.workers: one for one in reversed(candidates)} if every_number else {}
    others = sorted(firsts.values(), key=candidates.index)
    return list(dict.fromkeys([candidates[0], *([rival] if rival else []), *others]))


def _floor(noise: Noise | None) -> float:
    return noise.rps_floor if noise is not None else 0.0
