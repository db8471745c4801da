"""Brings a Hugging Face source to a local folder: a folder as it is, the hub's repository through its own cache."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marline.core import LoadConfig, RequestError, StageError, located

SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.spm", "LICENSE*", "NOTICE*", "COPYING*", "README.md")
SMALL_S = 90.0  # deadline for the small files; the hub's client gives up on a silent connection after 10 s, some times over
WEIGHTS_S = 7200.0  # deadline for weights: 100 GB at 14 MB/s
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a source's files are: a folder, the names of all files it has or could have, and its commit on the hub."""

    folder: Path
    files: frozenset[str]
    repository: str | None = None
    revision: str | None = None


def find_place(config: LoadConfig) -> Place:
    """The small files of the source; refuses, before anything is fetched, to run code that may change under its name."""
    if not config.source.startswith("hf:"):
        return _local(config)
    repository, _, revision = config.source.removeprefix("hf:").partition("@")
    if config.trust_remote_code and not COMMIT.fullmatch(revision):
        raise RequestError(
            f"load.trust_remote_code=true runs code of {repository}, and {revision or 'its main branch'!r} may change at "
            "any time; write load.source=hf:ORG/NAME@COMMIT with all 40 hex digits of a commit you have read"
        )
    patterns = [*SMALL, "*.py"] if config.trust_remote_code else SMALL
    place = fetched(repository, revision, patterns, SMALL_S)
    if "config.json" not in place.files:
        raise RequestError(f"load.source={config.source} has no config.json, so it is no model of transformers")
    return place


def with_weights(place: Place, patterns: Sequence[str]) -> Place:
    """The same place with the files that match fetched as well; a folder has them already."""
    if place.repository is None:
        return place
    return fetched(place.repository, place.revision or "", patterns, WEIGHTS_S)


def _local(config: LoadConfig) -> Place:
    folder = located(config.source)
    if not folder.is_dir():
        raise RequestError(f"load.source={config.source}: there is no such folder; relative paths start at the project's root")
    if not (folder / "config.json").is_file():
        raise RequestError(f"load.source={config.source}: the folder has no config.json, so it is no model of transformers")
    return Place(folder, frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))


def fetched(repository: str, revision: str, patterns: Sequence[str], seconds: float) -> Place:
    """A repository's files that match, in the hub's cache; StageError after `seconds`, or sooner with the hub's reason."""
    command = [sys.executable, str(Path(__file__).with_name("_fetch.py")), repository, revision, *patterns]
    environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise _out_of_reach(repository, f"no answer within {seconds:.0f} s") from None
    if done.returncode != 0:
        raise _out_of_reach(repository, (done.stderr.strip().splitlines() or ["no reason given"])[-1])
    told = json.loads(done.stdout.splitlines()[-1])
    folder = Path(told["folder"])
    commit = folder.name if COMMIT.fullmatch(folder.name) else revision or None
    return Place(folder, frozenset(told["files"]), repository, commit)


def _out_of_reach(repository: str, reason: str) -> StageError:
    kind = reason.partition(" ")[0]
    if kind in {"RepositoryNotFoundError", "RevisionNotFoundError"}:
        what = "has no such repository or revision, or not for your token (HF_TOKEN)"
    elif kind == "GatedRepoError":
        what = "asks you to accept the terms of this repository first, and for your token (HF_TOKEN)"
    else:
        what = "cannot be reached, and the cache does not have what is needed"
    return StageError(f"{repository}: the hub {what} ({reason[:200]}); or give a local folder, load.source=./FOLDER")
