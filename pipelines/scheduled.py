"""The flow that is deployed: `lifecycle` with parameters that Prefect's form shows, each with its type and its choices."""

from collections.abc import Sequence
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from marline.core import STAGES, known_models, project_root, service_curves
from pipelines.lifecycle import lifecycle

ROOT = project_root()
PROFILES = sorted(file.stem for file in (ROOT / "configs" / "profiles").glob("*.yaml"))
Model = Annotated[str, Field(json_schema_extra={"enum": known_models(ROOT)})]
Profile = Annotated[str, Field(json_schema_extra={"enum": PROFILES})]
Slo = Annotated[float, Field(gt=0)]
Accelerator = Annotated[str, Field(json_schema_extra={"enum": ["auto", "cpu", "cuda", *service_curves(ROOT)]})]
Fresh = Annotated[str, Field(json_schema_extra={"enum": list(STAGES)})]
Word = Annotated[str, Field(pattern=r"^[a-z_]+(\.[a-z_]+)*=.+$")]
KEYS = {"profile": "profile", "slo_ms": "tune.slo_ms", "accelerator": "accelerator", "fresh": "fresh"}


@flow(name="capacity", flow_run_name="{model}")
def capacity(
    model: Model,
    profile: Profile = "standard",
    slo_ms: Slo | None = None,
    accelerator: Accelerator = "auto",
    fresh: Fresh | None = "tune",
    settings: Sequence[Word] = (),
) -> str:
    """Measure a model's capacity on the machine that runs this.

    Args:
        model: a name of configs/models
        profile: how thoroughly is measured; smoke is too short for a verdict at p99
        slo_ms: the latency objective in milliseconds; empty takes five times the latency of one request, 50 ms at least
        accelerator: what runs the model; the key of a published curve emulates one
        fresh: the first stage that must not come from the cache; tune measures again though nothing has changed
        settings: any other settings, key=value each, as on the command line: tune.percentile=95
    """
    told = {"profile": profile, "slo_ms": slo_ms, "accelerator": accelerator, "fresh": fresh}
    words = [f"{KEYS[name]}={value}" for name, value in told.items() if value is not None]
    return str(lifecycle.fn(model, [*words, *settings]))


def parameters(model: str, words: Sequence[str]) -> dict[str, Any]:
    """What `capacity` is given for the words of a command line; what it has no parameter for goes into `settings`."""
    names = {key: name for name, key in KEYS.items()}
    told: dict[str, Any] = {"model": model, "settings": []}
    for word in words:
        key, _, value = word.partition("=")
        if key in names and value != "auto":
            told[names[key]] = float(value) if key == "tune.slo_ms" else value
        else:
            told["settings"].append(word)
    return told
