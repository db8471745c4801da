"""The replica that is planned with: what a finished tuning left of it."""

from collections.abc import Mapping
from typing import Any

from marline.core import PlanConfig, RequestError, StageError
from marline.plan._twin import Twin
from marline.report import slo_words
from marline.tune import Service, Setting

REBUILT = (
    "this run was tuned before results held the fitted twin: its service curve is the one measured without load, so that the "
    "replicas that are simulated may be quicker than those that were measured; nox -s tune with fresh=tune measures anew"
)


def twin_of(model: str, result: Mapping[str, Any], config: PlanConfig) -> tuple[Twin, list[str]]:
    """The twin of the configuration that tune chose, and what to say of it.

    RequestError where the result holds no overheads, StageError where no rate was within the objective.
    """
    chosen, slo = result["chosen"], result["slo"]
    if not chosen["rps"] or chosen["slo_met"] is False:
        raise StageError(
            f"the newest tuning of {model} found no rate within its SLO ({slo_words(slo)}), so no number of replicas carries a "
            f"load within it; loosen it: nox -s tune -- model={model} tune.slo_ms={2 * slo['ms']:g}"
        )
    if not result.get("overheads"):
        raise RequestError(
            f"the newest tuning of {model} measured no overheads around a batch, which the simulation needs; make one that did "
            f"with nox -s tune -- model={model} fresh=tune"
        )
    twin = Twin(
        service=Service.read(result.get("service") or _rebuilt(result)),
        setting=Setting(chosen["batch_size"], chosen["max_batch_delay_ms"], chosen["workers"]),
        slo_ms=slo["ms"],
        percentile=slo["percentile"],
        balancing=config.balancing,
        seed=config.seed,
    )
    return twin, [] if "service" in result else [REBUILT]


def _rebuilt(result: Mapping[str, Any]) -> dict[str, Any]:
    kind, workers = result["accelerator"]["kind"], result["chosen"]["workers"]
    queue = next(value["now"] for value in result["values"] if value["key"] == "jobQueueSize")
    shared = kind == "emulated" or (kind == "cuda" and len(result["machine"]["gpus"]) < workers)
    return {"points": result["curve"], **result["overheads"], "shared": shared, "queue": queue}
