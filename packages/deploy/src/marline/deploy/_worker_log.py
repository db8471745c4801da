"""What workers print, which TorchServe keeps in one file for all of them, each line behind the name of its worker."""

import re
from collections import Counter
from pathlib import Path

FILE = "worker.log"
STARTED = "Torch worker started"
TRACEBACK = "Traceback (most recent call last):"


def size(logs: Path) -> int:
    """Where the log ends now, in bytes."""
    file = logs / FILE
    return file.stat().st_size if file.exists() else 0


def said(logs: Path, seen: int, model: str, version: str) -> str:
    """What the workers of one version of a model printed since the log had `seen` bytes, as they printed it."""
    return "".join(f"{line}\n" for _, line in _lines(logs, seen, model, version))


def starts(logs: Path, seen: int, model: str, version: str) -> int:
    """The most often that any one worker of a version was started since then."""
    return max(Counter(worker for worker, line in _lines(logs, seen, model, version) if STARTED in line).values(), default=0)


def _lines(logs: Path, seen: int, model: str, version: str) -> list[tuple[str, str]]:
    """(worker, what it printed), line by line."""
    file = logs / FILE
    if not file.exists():
        return []
    with file.open("rb") as stream:
        stream.seek(seen if seen <= file.stat().st_size else 0)  # a log that was begun anew is read whole
        text = stream.read().decode(errors="replace")
    return re.findall(rf"^W-(\d+)-{re.escape(f'{model}_{version}')}-std(?:out|err) - (.*)$", text, re.MULTILINE)


def first_failure(log: str) -> str | None:
    """The first chain of tracebacks a worker printed, once it is whole; None while there is none."""
    if TRACEBACK not in log:
        return None
    lines = log[log.index(TRACEBACK) :].splitlines()
    ends = [index for index, line in enumerate(lines) if line and not line.startswith((" ", TRACEBACK, "The above", "During"))]
    whole = [index for index in ends if not any(TRACEBACK in line for line in lines[index + 1 : index + 5])]
    return "\n".join(lines[: whole[0] + 1]) if whole else None


def newest_failure(log: str) -> str | None:
    """The last traceback a worker printed, without what led to it."""
    return first_failure(log[log.rindex(TRACEBACK) :]) if TRACEBACK in log else None
