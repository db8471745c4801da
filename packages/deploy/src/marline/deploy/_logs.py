"""Reads what a log file has said since a moment, though the file may have been rotated away in between."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a log had come: which file it was, and its size in bytes."""

    inode: int = 0
    size: int = 0


def mark(log: Path) -> Mark:
    """Where a log stands now; at its beginning where there is none yet."""
    try:
        told = log.stat()
    except FileNotFoundError:
        return Mark()
    return Mark(told.st_ino, told.st_size)


def since(log: Path, before: Mark) -> str:
    """What was written after a mark; of a log that was rotated, what is left of it in its newest backup, then the new file."""
    backup = log.with_suffix(f".1{log.suffix}")
    if mark(log).inode == before.inode:
        return _from(log, before.size)
    return (_from(backup, before.size) if mark(backup).inode == before.inode else "") + _from(log, 0)


def _from(log: Path, size: int) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(size)
            return stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
