"""Run folders: `artifacts/<model>/<run>/<stage>/`, `latest`, the newest complete run, and the one accepted as baseline."""

import json
import os
import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path

from marline.core._config import STAGES
from marline.core._errors import RequestError
from marline.core._manifest import NAME, Manifest, read_manifest, write_json

ACCEPTED = "accepted.json"


def new_run(artifacts: Path, model: str) -> Path:
    """Make the folder of a new run; its name sorts by time and is unique."""
    run = artifacts / model / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    run.mkdir(parents=True)
    return run


def runs(artifacts: Path, model: str) -> list[Path]:
    """All runs of a model, oldest first, unfinished ones included."""
    folder = artifacts / model
    return sorted(path for path in folder.glob("*-*-*") if path.is_dir() and not path.is_symlink())


def is_complete(run: Path) -> bool:
    """Whether a run went to its end: the report is the last stage."""
    return (run / STAGES[-1] / NAME).is_file()


def adopt(run: Path, manifest: Manifest) -> None:
    """Show a stage that came from an earlier run in this one, as a link that says where from."""
    link = run / manifest.stage
    if link.resolve() != manifest.folder.resolve():
        link.symlink_to(os.path.relpath(manifest.folder, run), target_is_directory=True)


def newest(artifacts: Path, model: str, stage: str) -> Manifest:
    """The manifest of the newest finished `stage` of a model; RequestError where there is none."""
    for run in reversed(runs(artifacts, model)):
        if (run / stage / NAME).is_file():
            return read_manifest(run / stage)
    raise RequestError(f"no finished {stage} of {model} in {artifacts}; make it with nox -s {stage} -- model={model}")


def accept(run: Path, why: str) -> None:
    """Make a complete run the one that later runs of its model are compared with; `why` says who wanted that."""
    if not is_complete(run):
        raise RequestError(f"{run} is no complete run to compare others with; nox -s report -- list=true shows all")
    write_json(run.parent / ACCEPTED, {"run": run.name, "accepted": f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}Z", "why": why})


def accepted(artifacts: Path, model: str) -> str | None:
    """The name of the run that was accepted last; None where none was."""
    file = artifacts / model / ACCEPTED
    if not file.is_file():
        return None
    try:
        name = json.loads(file.read_text())["run"]
    except (ValueError, TypeError, KeyError) as error:
        raise RequestError(f"{file} is damaged ({error}); write it anew: nox -s report -- model={model} accept=RUN") from None
    return str(name)


def complete(run: Path, keep_runs: int) -> None:
    """Point `latest` at this run and remove the oldest runs beyond `keep_runs`.

    The accepted run is kept, and so is one that a kept one took stages from, and those younger than the newest complete one:
    they may still be going on.
    """
    latest = run.parent / "latest"
    partial = run.parent / f".latest.{os.getpid()}"
    partial.unlink(missing_ok=True)
    partial.symlink_to(run.name)
    partial.replace(latest)
    every = runs(run.parent.parent, run.parent.name)
    kept = [path for path in every if is_complete(path)][-keep_runs:]
    baseline = [path for path in every if path.name == accepted(run.parent.parent, run.parent.name)]
    needed = {path.resolve() for path in baseline} | {
        (path / stage).resolve().parent for path in (*kept, *baseline) for stage in STAGES
    }
    for path in every:
        if path.name < kept[0].name and path.resolve() not in needed:
            shutil.rmtree(path)
