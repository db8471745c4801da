"""Runs trials one after another on one server, and keeps them all."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from marline.core import progress
from marline.deploy import Server
from marline.loadtest import wait_until_quiet
from marline.tune._setting import Setting
from marline.tune._trial import Bench, Trial, run_trial

AGAIN, SURE = 8, 3  # trials in which a confirmation may look for a rate that holds, and those it gets whatever the time
STEP_DOWN = 0.75
CONFIRM_AT = 0.85  # of the rate the search found: at the edge itself one hiccup of the machine queues for seconds
CONFIRM_SHARE = 1.5  # of the budget: when confirmations beyond those end
DEFAULT_SHARE = 2.0  # and the search for the default, which must have its chance: a gain is over its best rate


def serve(server: Server, archive: Path, model: str, setting: Setting) -> None:
    """Register an archive with a setting; what the server says it serves is compared with what was asked."""
    server.load(
        archive,
        model,
        batch_size=setting.batch_size,
        max_batch_delay_ms=setting.max_batch_delay_ms,
        workers=setting.workers,
    )


@dataclass
class Runner:
    """Knows which archive is loaded how, so that a model is registered anew only when its setting changes."""

    bench: Bench
    expected: int
    trials: list[Trial] = field(default_factory=list)
    loaded: tuple[Path, Setting] | None = None
    began_s: float = field(default_factory=time.monotonic)

    def in_time(self, share: float = 1.0) -> bool:
        """Whether the search may still refine; every setting has its one trial and its confirmation all the same."""
        return time.monotonic() - self.began_s < share * self.bench.tune.budget_s

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
        number = len(self.trials) + 1
        share = min(0.15 + 0.85 * (number - 1) / self.expected, 0.99)
        told = f"batch_size={setting.batch_size} max_batch_delay_ms={setting.max_batch_delay_ms}, {rps:.1f} req/s"
        progress(share, f"{purpose} {number}: {told}")
        self.load(archive, setting)
        trial = run_trial(self.bench, setting, rps, number, purpose)
        self.trials.append(trial)
        if not trial.valid:  # it will be repeated, perhaps after something else that took the machine has ended
            wait_until_quiet()
        return trial

    def confirm(self, archive: Path, setting: Setting, rps: float, to_beat_rps: float = 0.0) -> Trial | None:
        """A longer trial just below `rps`, or at 3/4 of that and so on, while above `to_beat_rps`; None where no rate held."""
        rps *= CONFIRM_AT
        repeated = False
        for turn in range(AGAIN):
            if rps <= to_beat_rps or (turn >= SURE and not self.in_time(CONFIRM_SHARE)):
                break
            trial = self.run(archive, setting, rps, "confirm")
            if trial.within(self.bench.slo_ms):
                return trial
            if trial.valid or repeated:  # a trial that stays invalid may be so because this rate is too much
                rps *= STEP_DOWN
            repeated = not trial.valid
        return None
