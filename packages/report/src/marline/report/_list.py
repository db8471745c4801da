"""Every run of a model in a table, unfinished and damaged ones as such."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from marline.core import STAGES, Manifest, MarlineError, accepted, is_complete, read_manifest, runs
from marline.report._baseline import RUN
from marline.report._tables import Row, Table
from marline.report._verdict import objective_words
from marline.report._words import MET, accelerator_words, milliseconds, number, slo_words

HEAD = ("model", "run", "date (UTC)", "profile", "accelerator", "SLO", "chosen", "/s", "p99 ms", "gain", "SLO met", "")


def models(artifacts: Path) -> list[str]:
    """The models that have runs."""
    found = sorted(artifacts.glob("*/")) if artifacts.is_dir() else []
    return [folder.name for folder in found if any(RUN.fullmatch(run.name) for run in runs(artifacts, folder.name))]


def listed(artifacts: Path, names: list[str]) -> Table:
    """All runs of these models, the oldest first."""
    return Table(HEAD, tuple(row for name in names for row in _rows(artifacts, name)), frozenset({0, 1, 2, 3, 4, 5, 6, 10, 11}))


def _rows(artifacts: Path, model: str) -> Iterator[Row]:
    latest, baseline = (artifacts / model / "latest").resolve().name, accepted(artifacts, model)
    for run in runs(artifacts, model):
        if RUN.fullmatch(run.name) is None:
            continue
        marks = ["latest"] * (run.name == latest) + ["accepted"] * (run.name == baseline)
        cells, state = _cells(run)
        date = f"{datetime.strptime(run.name[:15], '%Y%m%d-%H%M%S').replace(tzinfo=UTC):%Y-%m-%d %H:%M}"
        yield Row(
            (model, run.name, date, *cells, ", ".join([*state, *marks])), "invalid" * bool(state) or "chosen" * bool(marks)
        )


def _cells(run: Path) -> tuple[list[str], list[str]]:
    """What a run found, and why it is not whole."""
    unknown = ["–"] * (len(HEAD) - 4)
    if not (run / "tune" / "manifest.json").is_file():
        done = [stage for stage in STAGES if (run / stage / "manifest.json").is_file()]
        if done == [STAGES[-1]]:
            return unknown, ["another report of an earlier run"]
        return unknown, [f"unfinished, after {done[-1]}" if done else "unfinished"]
    try:
        return _found(read_manifest(run / "tune")), [] if is_complete(run) else ["unfinished, after tune"]
    except (MarlineError, OSError, ValueError, KeyError, TypeError) as error:  # whatever another version left, or nobody
        return unknown, [f"damaged: {' '.join(str(error).split())[:80]}"]


def _found(tuned: Manifest) -> list[str]:
    told: dict[str, Any] = json.loads(tuned.path("result.json").read_text())
    chosen, gain = told["chosen"], told["gain"]
    slo = slo_words(told["slo"])
    if told.get("objective", {"name": "rate"})["name"] != "rate":
        slo += f", {objective_words(told)}"
    return [
        str(told.get("profile", "–")),
        accelerator_words(told["accelerator"]),
        slo,
        " / ".join(str(chosen[key]) for key in ("batch_size", "max_batch_delay_ms", "workers")),
        number(chosen["rps"]) if chosen["rps"] else "none",
        milliseconds(chosen["p99_ms"], chosen["samples"]),
        "–" if gain is None else f"{number(gain)} ×",
        MET[chosen["slo_met"]],
    ]
