import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import marline.report
from marline.core import read_manifest, verify

Make = Callable[..., Path]
NUMBER = (int, float)
OPTIONAL = (int, float, type(None))
CONFIG: dict[str, Any] = {
    "batch_size": int,
    "max_batch_delay_ms": int,
    "workers": int,
    "rps": NUMBER,
    "p50_ms": OPTIONAL,
    "p95_ms": OPTIONAL,
    "p99_ms": OPTIONAL,
    "samples": int,
    "slo_met": (bool, type(None)),
}
TRIAL: dict[str, Any] = CONFIG | {
    "valid": bool,
    "invalid_reason": (str, type(None)),
    "seconds": NUMBER,
    "errors": int,
    "mean_batch": NUMBER,
}
CONFIG_KEYS: dict[str, Any] = {"batch_size": int, "max_batch_delay_ms": int, "workers": int}
COMPARED: dict[str, Any] = {"p50_ms": OPTIONAL, "p99_ms": OPTIONAL, "mean_batch": OPTIONAL}
REPORT: dict[str, Any] = {
    "schema": int,
    "model": str,
    "run": str,
    "weights": {"kind": str, "detail": str},
    "accelerator": {"kind": str, "name": str},
    "slo": {"percentile": NUMBER, "ms": NUMBER, "origin": str},
    "default": CONFIG,
    "chosen": CONFIG,
    "runner_up": (dict, type(None)),
    "gain": OPTIONAL,
    "noise": (dict, type(None)),
    "strategy": str,
    "objective": {"name": str, "at_rps": OPTIONAL},
    "answer": str,
    "predictions": [CONFIG_KEYS | {"rps": NUMBER, "p99_ms": OPTIONAL, "mean_batch": OPTIONAL}],
    "compared": [CONFIG_KEYS | {"offered_rps": NUMBER, "predicted": COMPARED, "measured": COMPARED}],
    "diagnoses": [CONFIG_KEYS | {"kind": str, "words": str}],
    "values": [{"key": str, "was": int, "now": int, "why": str}],
    "trials": [TRIAL],
    "stages": [{"name": str, "seconds": NUMBER, "cached": bool}],
    "versions": dict,
    "warnings": list,
    "verdict": {"sentence": str, "confidence": str, "gain": str, "marks": list, "evidence": str},
    "observed": [{"goodput_rps": NUMBER, "answered_rps": NUMBER, "mean_ms": OPTIONAL, "tail_ms": OPTIONAL, "sha256": str}],
    "knee": {"knee_rps": OPTIONAL, "plateau_rps": OPTIONAL, "held_rps": OPTIONAL, "missed_rps": OPTIONAL},
    "confidence": {"measurements": int, "configurations": int, "tail_interval": (dict, type(None)), "gain_bounds": dict},
    "map": [CONFIG_KEYS | {"rps": NUMBER, "mean_batch": OPTIONAL, "origin": str, "missed_rps": OPTIONAL}],
    "breakdown": {"total_ms": NUMBER, "parts": [{"part": str, "ms": NUMBER, "origin": str}], "within": list},
    "resources": {"memory_mb": OPTIONAL, "sender_cpu": NUMBER, "concurrency": OPTIONAL, "queue_bound": int, "connections": int},
    "scaling": {"origin": str, "points": list, "fit": (dict, type(None)), "reason": (str, type(None))},
    "cost": {"price_per_hour": OPTIONAL, "currency": str, "rows": list},
    "cold_start": [{"step": str, "seconds": OPTIONAL, "covers": str}],
    "sensitivity": {"objective": list, "load": list},
}


def wrong(value: Any, shape: Any, place: str = "report") -> list[str]:
    """Places where a value has not the promised shape; keys beyond it are allowed."""
    if isinstance(shape, dict):
        missing = [f"{place}.{key}" for key in shape if key not in value]
        return missing + [bad for key in shape if key in value for bad in wrong(value[key], shape[key], f"{place}.{key}")]
    if isinstance(shape, list):
        return [bad for number, item in enumerate(value) for bad in wrong(item, shape[0], f"{place}[{number}]")]
    return [] if isinstance(value, shape) else [f"{place} is {value!r}"]


def test_report_json_keeps_its_contract(usual: Path) -> None:
    report = json.loads((usual / "report.json").read_text())

    assert [] == wrong(report, REPORT)
    assert (1, "resnet50", "20260302-041107-9c1e", 23) == (
        report["schema"],
        report["model"],
        report["run"],
        len(report["trials"]),
    )


def test_stages_say_what_was_cached_and_from_which_run(usual: Path) -> None:
    stages = json.loads((usual / "report.json").read_text())["stages"]

    assert {"name": "load", "seconds": 3.1, "cached": True, "run": "20260227-170256-41d0"} == stages[0]
    assert ["archive", "deploy", "tune"] == [stage["name"] for stage in stages if not stage["cached"]]


def test_versions_include_what_the_server_said(usual: Path) -> None:
    versions = json.loads((usual / "report.json").read_text())["versions"]

    assert ("25.0.1", "0.12.0") == (versions["java"], versions["torchserve"])


def test_the_report_is_sealed_with_all_its_files(usual: Path) -> None:
    manifest = read_manifest(usual)
    verify(manifest)

    pictures = ("batch_and_delay", "goodput", "latency_split", "service_curve", "throughput_latency")
    drawn = [f"{name}.{kind}" for name in pictures for kind in ("png", "svg")]
    assert sorted([*drawn, "report.html", "report.json", "report.md"]) == sorted(manifest.outputs)
    assert ["load", "wrap", "export", "archive", "deploy", "tune"] == list(manifest.inputs)


def test_the_same_run_gives_the_same_files(make: Make) -> None:
    first = make()
    before = {file.name: file.read_bytes() for file in first.iterdir() if file.name != "manifest.json"}
    shutil.rmtree(first.parent)
    second = make()

    assert before == {file.name: file.read_bytes() for file in second.iterdir() if file.name != "manifest.json"}


def test_public_names() -> None:
    exposed = {name for name in vars(marline.report) if not name.startswith("_")}

    assert exposed == set(marline.report.__all__)
