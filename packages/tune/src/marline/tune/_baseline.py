"""The load of an earlier run once more: its configuration at the rate it promised, on the server and the archive of this run.

Two runs promise two rates, and latencies at two rates cannot be compared. So a run that is to be compared sends the very load
that confirmed the other one's promise: the same rate, seconds and arrivals.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from marline.loadtest import Load
from marline.tune._choose import Chooser
from marline.tune._setting import Setting
from marline.tune._trial import load_of

ATTEMPTS = 3  # trials in which a valid one is hoped for


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What confirmed an earlier run: its setting, and the load as its trial tells it."""

    setting: Setting
    rps: float  # as wished, not as the schedule drew it
    seconds: float
    warmup_s: float
    seed: int

    def as_json(self) -> dict[str, Any]:
        """For result.json and for the keys of caches."""
        return asdict(self)


def send_baseline(chooser: Chooser, baseline: Baseline) -> list[str]:
    """Send the load until a trial of it is valid; what must be said where it could not be sent. Leaves another tuned archive.

    Nothing is learned from it for this run's own choice, which has been made.
    """
    setting, points, runner = baseline.setting, chooser.forecast.measured.points, chooser.runner
    if setting.batch_size > points[-1].batch:
        largest = f"larger than {points[-1].batch} are not known here"
        return [f"the baseline's load was not sent: it needs batches of {setting.batch_size}, and {largest}"]
    archive = chooser.tuned_archive(setting).file
    for _ in range(ATTEMPTS):
        trial = runner.send(archive, setting, _load(chooser, baseline), "baseline")
        chooser.forecast.learn(trial, runner.raw[-1], runner.loads[-1], fit=False)
        if trial.valid or trial.too_large:
            break
    return []


def _load(chooser: Chooser, baseline: Baseline) -> Load:
    """The load of a trial of ours, with what the baseline says of it in place of our own."""
    ours = load_of(chooser.runner.bench, baseline.rps, "baseline", 0)
    return replace(ours, seconds=baseline.seconds, warmup_s=baseline.warmup_s, seed=baseline.seed)
