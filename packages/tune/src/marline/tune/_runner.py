"""Runs trials one after another on one server, and keeps them all; what an interrupted run has measured is taken from it."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from marline.core import LoadTestError, progress
from marline.deploy import Server
from marline.loadtest import Load, samples_needed, wait_until_quiet
from marline.tune._journal import Journal, Raw
from marline.tune._setting import Setting
from marline.tune._trial import Bench, Trial, judge, load_of, run_trial

AGAIN = 4  # trials in which a confirmation may look for a rate that holds; one it gets whatever the time
STEPS_DOWN, NARROW = (0.85, 0.7, 0.55), 0.93  # after the first, second, third miss, and after a trial that left it undecided
CONFIRM_SHARE = 1.1  # of the budget is for confirmations: with the search, a standard run is within 12 min at 9 requests/s


def serve(server: Server, archive: Path, model: str, setting: Setting) -> None:
    """Register an archive with a setting; what the server says it serves is compared with what was asked."""
    server.load(archive, model, **asdict(setting))


@dataclass
class Runner:
    """Knows which archive is loaded how, so that a model is registered anew only when its setting changes."""

    bench: Bench
    journal: Journal
    expected: int
    trials: list[Trial] = field(default_factory=list)
    raw: list[Raw] = field(default_factory=list)  # of each trial, in the same order
    loads: list[Load] = field(default_factory=list)  # the same
    loaded: tuple[Path, Setting] | None = None
    hopes: bool = True  # that waiting helps: a machine that stayed busy once is busy with something longer than we wait

    @property
    def spent_s(self) -> float:
        """What all trials took, those of an interrupted run too: it decides the same again when they are gone through again."""
        return sum(trial.took_s for trial in self.trials)

    def in_time(self) -> bool:
        """Whether the search may still refine; every setting has its one trial and its confirmation all the same."""
        return self.spent_s < self.bench.tune.budget_s

    def in_time_from_now(self, share: float = 1.0) -> Callable[[], bool]:
        """As `in_time`, from now on: the default must have its chance, too, as a gain is over its best rate."""
        begun_s = self.spent_s
        return lambda: self.spent_s - begun_s < share * self.bench.tune.budget_s

    def load(self, archive: Path, setting: Setting) -> None:
        """Make the server serve `archive` with `setting`."""
        if self.loaded == (archive, setting):
            return
        self.bench.server.unload(self.bench.model)
        self.loaded = None
        serve(self.bench.server, archive, self.bench.model, setting)
        self.loaded = (archive, setting)

    def run(self, archive: Path, setting: Setting, rps: float, purpose: str) -> Trial:
        """One trial of one setting at one rate."""
        return self.send(archive, setting, load_of(self.bench, rps, purpose, len(self.trials) + 1), purpose)

    def send(self, archive: Path, setting: Setting, load: Load, purpose: str) -> Trial:
        """One trial of one setting under one load, or what an interrupted run has measured of the same."""
        number = len(self.trials) + 1
        share = min(0.15 + 0.85 * (number - 1) / self.expected, 0.99)
        progress(share, f"{purpose} {number}: {told(setting)}, {load.rps:.1f} req/s")
        asked = {"number": number, "setting": asdict(setting), "load": _told(load), "purpose": purpose}
        raw = self.journal.find(asked)
        if raw is None:
            raw = self._measure(archive, setting, load, number)
            self.journal.keep(asked, raw)
        trial = judge(self.bench, setting, load, purpose, raw, number, self.journal.run)
        self.trials.append(trial)
        self.raw.append(raw)
        self.loads.append(load)
        return trial

    def confirm(
        self,
        archive: Path,
        setting: Setting,
        rps: float,
        to_beat_rps: float = 0.0,
        *,
        at_rps: float | None = None,
        in_time: Callable[[], bool],
        learned: Callable[[Trial], float],
    ) -> Trial | None:
        """A longer trial at `rps`, and at less where that does not hold, while above `to_beat_rps` and `in_time`.

        `learned` hears of every trial and says which rate seems safe now: after a miss the next is no higher, and a step lower
        in any case. With `at_rps` that is the one rate that counts. None where no rate held.
        """
        rate, again, missed = at_rps or rps, False, 0
        for turn in range(AGAIN):
            if rate <= to_beat_rps or (turn and not in_time()):
                break
            trial = self.run(archive, setting, rate, "confirm")
            safe_rps = learned(trial)
            if self.holds(trial):
                return trial
            if trial.too_large:
                break
            if trial.valid or again:  # a trial that stays invalid may be so because this rate is too much
                if at_rps is not None:
                    break
                within = trial.within(self.bench.slo_ms)
                step = NARROW if within else STEPS_DOWN[min(missed, len(STEPS_DOWN) - 1)]
                rate = min(step * rate, safe_rps)
                missed += not within
            again = not trial.valid
        return None

    def holds(self, trial: Trial) -> bool:
        """Whether a rate may be promised: the binomial rule accepts it, or too few samples to ask that kept the objective."""
        few = trial.samples < decisive(self.bench.tune.percentile, self.bench.tune.confidence)
        return trial.within(self.bench.slo_ms) and (trial.slo_met is True or (few and trial.slo_met is None))

    def interrupted(self) -> list[str]:
        """The runs that were interrupted and whose trials these are, in words."""
        runs: dict[str, list[int]] = {}
        for place, trial in enumerate(self.trials, 1):
            if trial.run is not None:
                runs.setdefault(trial.run, []).append(place)
        return [
            f"trials {places[0]} to {places[-1]} were measured in run {run}, which was interrupted; fresh=tune measures anew"
            for run, places in runs.items()
        ]

    def _measure(self, archive: Path, setting: Setting, load: Load, number: int) -> Raw:
        began = time.monotonic()
        self.load(archive, setting)
        try:
            raw = run_trial(self.bench, load, number, self.journal.run)
        except LoadTestError as error:  # of the sender, which says nothing about the server: once more
            progress(0.99, f"trial {number} is repeated: {error}")
            self.loaded = None  # what is left of it must not be the next one's
            self.load(archive, setting)
            raw = run_trial(self.bench, load, number, self.journal.run)
        if not raw.idle:
            self.loaded = None  # as above
        if raw.reason is not None and self.hopes:  # it will be repeated, when something else that took the machine has ended
            self.hopes = wait_until_quiet()
        return replace(raw, took_s=time.monotonic() - began)


def told(setting: Setting) -> str:
    """A setting in TorchServe's words; workers where there are several."""
    workers = f" workers={setting.workers}" if setting.workers > 1 else ""
    return f"batch_size={setting.batch_size} max_batch_delay_ms={setting.max_batch_delay_ms}{workers}"


def _told(load: Load) -> dict[str, Any]:
    """A load as JSON."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(load).items()}


def decisive(percentile: float, confidence: float) -> int:
    """Requests that prove an objective where half as many miss it as may; with fewer, one hiccup leaves it undecided."""
    share = (100 - percentile) / 200
    return next(count for over in range(1000) if (count := samples_needed(percentile, confidence, over)) * share <= over)
