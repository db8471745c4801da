"""How `nox -s swap` and the `nox -s serve` that runs talk: by two files beside the state, their owner's alone.

The server has one master, the process that serves: it alone registers, switches and removes. Others ask it.
"""

import json
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from marline.core import RequestError, StageError, state_file
from marline.deploy._tokens import write_private

POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A swap that is asked for: the folder of a finished stage tune, and how to go about it."""

    stage: str
    canary_s: float
    keep: int
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of it, in words, and the exit code that says so."""

    code: int
    said: str
    id: str


def ask(model: str, wish: Wish, pid: int, deadline_s: float) -> Outcome:
    """Ask the process that serves a model, and wait; RequestError where another asks, StageError where nobody answers."""
    file, answer = _files(model)
    if file.exists():
        raise RequestError(f"another swap of {model} is asked for in {file}; wait for it, or delete the file")
    wished = Wish(**{**asdict(wish), "id": secrets.token_hex(8)})
    answer.unlink(missing_ok=True)
    write_private(file, json.dumps(asdict(wished)))
    deadline = time.monotonic() + deadline_s
    try:
        while time.monotonic() < deadline:
            told = _read(answer)
            if told is not None and told.get("id") == wished.id:
                answer.unlink(missing_ok=True)
                return Outcome(**told)
            if not Path(f"/proc/{pid}").exists():
                raise StageError(
                    f"the process that served {model} ended meanwhile; start it again with nox -s serve -- model={model}"
                )
            time.sleep(POLL_S)
    finally:
        file.unlink(missing_ok=True)
    raise StageError(f"{model} was not swapped within {deadline_s:.0f} s; what nox -s serve prints says how far it is")


def asked(model: str) -> Wish | None:
    """What is asked for and not answered yet, if anything."""
    told = _read(_files(model)[0])
    return Wish(**told) if told is not None else None


def answer(model: str, outcome: Outcome) -> None:
    """Say what became of a wish, which is over with that."""
    file, answered = _files(model)
    write_private(answered, json.dumps(asdict(outcome)))
    file.unlink(missing_ok=True)


def forget(model: str) -> None:
    """Remove both files."""
    for file in _files(model):
        file.unlink(missing_ok=True)


def _files(model: str) -> tuple[Path, Path]:
    state = state_file(model)
    return state.with_suffix(".swap"), state.with_suffix(".swapped")


def _read(file: Path) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    return told
