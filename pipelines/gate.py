"""The gate of a run: which earlier one it is compared with, what is measured for that, and what follows from the verdict."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from marline.core import STAGES, Accelerator, Config, Manifest, accept, project_root

if TYPE_CHECKING:
    from marline.tune import Baseline

SENT = ("rps", "seconds", "warmup_s", "seed")


@dataclass(frozen=True, slots=True)
class Gate:
    """A run's configuration as it is carried out, and the load of its baseline that it sends too."""

    config: Config
    baseline: "Baseline | None" = None
    accepts: bool = False  # whether a run that passes is the next one's baseline

    @classmethod
    def of(cls, config: Config, accelerator: Accelerator) -> "Gate":
        """The gate of `report.fail_if`; RequestError where there is no such baseline.

        An objective that is `auto` is the baseline's: 5 t(1) measured anew would hide a t(1) that grew, and differs each time.
        """
        told = config.report
        if told.fail_if is None:
            return cls(config)
        import marline.report  # noqa: PLC0415 - both take a second to import, which a run without a gate begins without
        from marline.tune import Baseline, Setting  # noqa: PLC0415 - as above

        then = marline.report.find(told.baseline, project_root() / config.artifacts / config.model)
        scheduled = config.fresh is not None and STAGES.index(config.fresh) <= STAGES.index("tune")
        accepts = scheduled and told.baseline == "accepted"
        if then is None:
            return cls(config, accepts=accepts)
        tune = config.tune
        if tune.slo_ms == "auto":
            tune = tune.model_copy(update={"slo_ms": then["slo"]["ms"]})
        pinned = then["run"] if told.baseline == "accepted" else told.baseline  # whichever is accepted meanwhile
        kept = config.model_copy(update={"tune": tune, "report": told.model_copy(update={"baseline": pinned})})
        load = then["metrics"]["load"]
        if load is None or marline.report.differences(marline.report.asked(kept, accelerator), then):
            return cls(kept)
        setting = Setting(load["batch_size"], load["max_batch_delay_ms"], load["workers"])
        return cls(kept, Baseline(setting=setting, **{name: load[name] for name in SENT}), accepts)

    def settle(self, reported: Manifest, folder: Path) -> None:
        """GateRefused with the numbers, or where this is a scheduled run the next one's baseline."""
        import marline.report  # noqa: PLC0415 - as above

        gate = reported.facts["gate"]
        marline.report.enforce(gate)
        if self.accepts and gate is not None and not gate["differs"]:
            accept(folder, "scheduled")
