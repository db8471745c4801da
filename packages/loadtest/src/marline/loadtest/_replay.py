"""Arrivals as somebody recorded them: a file of timestamps, one a line."""

import math
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from marline.core import RequestError

MOST_LINES, LONGEST_LINE = 5_000_000, 100
SHOWN = 40


def recorded(file: Path, rps: float, seconds: float) -> NDArray[np.float64]:
    """The recording from its first instant on, stretched to `rps`, for so many seconds; a short one is played again."""
    instants = read_timestamps(file)
    scaled = (instants - instants[0]) * (own_rate(file) / rps)
    again = math.ceil(seconds * rps / instants.size)
    played: NDArray[np.float64] = (scaled + np.arange(again)[:, None] * (instants.size / rps)).ravel()
    return played[played < seconds]


def own_rate(file: Path) -> float:
    """Requests per second as they were recorded: gaps over the time from the first to the last."""
    instants = read_timestamps(file)
    return float((instants.size - 1) / (instants[-1] - instants[0]))


@cache
def read_timestamps(file: Path) -> NDArray[np.float64]:
    """Seconds, or ISO 8601 dates and times (UTC where they name no zone), ascending; blank lines are skipped.

    RequestError, with the line, where there is anything else.
    """
    if not file.is_file():  # a device or a pipe would never end
        raise RequestError(f"loadtest.replay={file} is no file; give one with a timestamp on each line")
    with file.open("rb") as stream:
        instants = np.array(_instants(file, stream))
    if instants.size < 2 or instants.max() == instants.min():
        raise RequestError(f"loadtest.replay={file} has {instants.size} timestamp(s), no time between them; give two at least")
    return np.sort(instants)


def _instants(file: Path, stream: BinaryIO) -> list[float]:
    instants: list[float] = []
    number, kinds = 0, set()
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE or number > MOST_LINES:
            what = f"longer than {LONGEST_LINE} bytes" if len(line) > LONGEST_LINE else f"beyond the {MOST_LINES} that are read"
            raise RequestError(f"loadtest.replay={file}: line {number} is {what}; expected one timestamp a line")
        if not (text := line.strip()):
            continue
        try:
            seconds, kind = _seconds(text.decode("ascii"))
        except ValueError:
            raise RequestError(
                f"loadtest.replay={file}: line {number} is {line.strip()[:SHOWN]!r}, which is no timestamp; "
                "expected seconds (1.25) or ISO 8601 (2026-01-02T03:04:05.678Z)"
            ) from None
        kinds.add(kind)
        if len(kinds) > 1:
            raise RequestError(f"loadtest.replay={file}: line {number} is in {kind}, the lines before it are not; use one")
        instants.append(seconds)
    return instants


def _seconds(text: str) -> tuple[float, str]:
    try:
        seconds = float(text)
    except ValueError:
        told = datetime.fromisoformat(text)
        return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp(), "ISO 8601"
    if not math.isfinite(seconds) or "_" in text:
        raise ValueError(text)
    return seconds, "seconds"
