"""What report.json says, gathered from the manifests; its keys are a contract, so nothing is renamed here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marline.core import Manifest, ReportConfig, flatten
from marline.report._capacity import capacity
from marline.report._raw import look
from marline.report._remarks import evidence
from marline.report._replicas import plan
from marline.report._verdict import confidence, gain_words, sentence
from marline.report._words import marks

TRIED = (
    *("slo", "accelerator", "default", "chosen", "runner_up", "gain", "noise", "strategy", "answer", "trials", "curve"),
    *("objective", "predictions", "compared", "diagnoses", "values", "machine", "tuned", "profile"),
)


@dataclass(frozen=True, slots=True)
class StageTime:
    """How long a stage took, and the run it was made in: an earlier one where it came from the cache."""

    name: str
    seconds: float
    cached: bool
    run: str


def content(
    model: str, config: ReportConfig, manifests: Sequence[Manifest], stages: Sequence[StageTime], run: str
) -> dict[str, Any]:
    """Gather the report of one run; the rates in it are requests/s, the latencies milliseconds."""
    by_stage = {manifest.stage: manifest for manifest in manifests}
    loaded, exported, archived, tuned = (by_stage[stage] for stage in ("load", "export", "archive", "tune"))
    result = json.loads(tuned.path("result.json").read_text())
    found: dict[str, Any] = {
        "schema": 1,
        "model": model,
        "run": run,
        "weights": loaded.facts["weights"],
        **{key: result[key] for key in TRIED},
        **{key: result[key] for key in ("gpu", "outlook", "overheads") if key in result},
        "stages": [{"name": time.name, "seconds": time.seconds, "cached": time.cached, "run": time.run} for time in stages],
        "versions": _versions(manifests, by_stage["deploy"].facts["server"]),
        "warnings": [*result["warnings"], *exported.facts["warnings"], *_strangers(manifests)],
        "archive": archived.facts,
        "source": {key: loaded.facts[key] for key in ("source", "task", "parameters")} | {"input": exported.facts["input"]},
        "parity": {
            key: exported.facts[key] for key in ("method", "reason", "parity", "golden", "atol", "rtol", "skipped", "suspects")
        },
        "deployed": by_stage["deploy"].facts,
        "measured": _measured(loaded, tuned, result),
        "replicas": plan(result["chosen"], config.target_rps, config.headroom),
        "headroom": config.headroom,
    }
    found |= capacity(found, config, look(tuned, found["trials"], found["slo"]))
    return found | {"verdict": _verdict(found)}


def _verdict(report: dict[str, Any]) -> dict[str, Any]:
    return {
        "sentence": sentence(report),
        "confidence": confidence(report, report["measured"]["confidence"]),
        "gain": gain_words(report),
        "evidence": evidence(report),
        "marks": marks(report["weights"], report["accelerator"]),
    }


def _measured(loaded: Manifest, tuned: Manifest, result: Mapping[str, Any]) -> dict[str, Any]:
    """How it was measured: what a reader needs to judge or repeat the numbers."""
    told = {key.rpartition(".")[2]: value for key, value in flatten(tuned.config)} | dict(result)
    trials = result["trials"]
    return {
        "seconds": result["seconds"],
        "load_tests": result["load_tests"],
        "load_seconds": result["load_seconds"],
        "longest_trial_s": max((trial["seconds"] for trial in trials), default=0.0),
        "trials": len(trials),
        "invalid_trials": sum(not trial["valid"] for trial in trials),
        "confidence": told.get("confidence"),
        "arrivals": told.get("arrivals"),
        "arrivals_seed": told.get("seed"),
        "weights_seed": loaded.config["seed"],
    }


def _versions(manifests: Sequence[Manifest], server: Mapping[str, str]) -> dict[str, str]:
    """What the stages ran on; where stages from different runs differ, both are named."""
    found: dict[str, list[str]] = {}
    for versions in [*(manifest.versions for manifest in manifests), server]:
        for name, version in versions.items():
            found.setdefault(name, []).append(version)
    return {name: " and ".join(dict.fromkeys(versions)) for name, versions in sorted(found.items())}


def _strangers(manifests: Sequence[Manifest]) -> list[str]:
    """Stages that did not work on what the others left: their numbers are about something else."""
    digests = {manifest.stage: manifest.digest for manifest in manifests}
    return [
        f"{manifest.stage} (run {manifest.run}) worked on another {upstream} than the one reported here; "
        f"make it again with nox -s {manifest.stage} -- model={manifest.model}"
        for manifest in manifests
        for upstream, digest in manifest.inputs.items()
        if digests.get(upstream, digest) != digest
    ]
