"""What a run is compared with: which earlier run that is, and whether it can be."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marline.core import Accelerator, Config, RequestError, accepted, located, machine
from marline.report._metrics import metrics

RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
KEYS = ("model", "run", "trials", "chosen", "default", "curve", "noise", "gain", "machine", "measured")
CONDITIONS = (  # what two runs must share for their figures to mean the same
    *(("machine", key) for key in ("processor", "cores", "memory_gib", "gpus", "system", "python")),
    *(("accelerator", key) for key in ("kind", "name", "time_scale")),
    *(("slo", key) for key in ("percentile", "ms")),
    *(("objective", key) for key in ("name", "at_rps")),
    ("measured", "arrivals"),
)


def find(told: str, model: Path) -> dict[str, Any] | None:
    """The report that `report.baseline` names; None where no run is accepted. `model` is the folder of all its runs."""
    name = accepted(model.parent, model.name) if told == "accepted" else told
    if name is None:
        return None
    return read_report(model / name / "report" / "report.json" if RUN.fullmatch(name) else located(name))


def read_report(file: Path) -> dict[str, Any]:
    """A report.json with its metrics, computed where an earlier version left them out, and `tune_folder` with its samples."""
    if not file.is_file():
        raise RequestError(f"there is no {file}; nox -s report -- list=true shows every run")
    try:
        report = json.loads(file.read_text())
    except ValueError as error:
        raise RequestError(f"{file} is damaged: {error}") from None
    missing = [key for key in KEYS if not isinstance(report, dict) or key not in report]
    if missing:
        raise RequestError(f"{file} is no report.json of ours, or of an early version: it has no {missing[0]!r}")
    tune = file.parent.parent / "tune"
    if "metrics" not in report:
        ready_s = report.get("deployed", {}).get("ready_s")
        report["metrics"] = metrics(report, tune, report["measured"]["confidence"], ready_s)
    return {**report, "tune_folder": tune}


def asked(config: Config, accelerator: Accelerator) -> dict[str, Any]:
    """What a report will say of a run's conditions, before there is one."""
    told = config.tune
    return {
        "model": config.model,
        "machine": machine(),
        "accelerator": {key: getattr(accelerator, key) for key in ("kind", "name", "time_scale")},
        "slo": {"percentile": told.percentile, "ms": told.slo_ms},
        "objective": {"name": told.objective, "at_rps": told.at_rps},
        "measured": {"arrivals": config.loadtest.arrivals},
    }


def differences(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """Why two runs cannot be compared, in words; empty where they can."""
    pairs = {"model": (now["model"], then["model"])} | {
        f"{group}.{key}": (now[group][key], then[group].get(key)) for group, key in CONDITIONS
    }
    return [f"{name} is {here} here and was {there} there" for name, (here, there) in pairs.items() if here != there]
