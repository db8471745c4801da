"""The load of a day: requests/s minute by minute, made or recorded.

    diurnal: rate(h) = peak (v + (1 - v) (1 - cos(2 pi (h - 4) / 24)) / 2)

lowest at 4 o'clock (v times the peak), highest at 16. It is ours: one harmonic is the simplest day there is. A recording of
one's own traffic says more, and `plan.trace=FILE` takes it.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marline.core import PlanConfig, RequestError, located

Floats = NDArray[np.float64]
MINUTE_S, HOUR_MINUTES = 60.0, 60
NIGHT_H, DAY_H = 4.0, 24.0
MOST_LINES, LONGEST_LINE, LONGEST_H = 5_000_000, 100, 168
SHOWN = 40


def rates(config: PlanConfig) -> Floats:
    """Requests/s of each minute, float [60 hours], its highest being `rps`, and growth on top of that."""
    minutes = config.hours * HOUR_MINUTES
    if config.trace == "constant":
        shape = np.ones(minutes)
    elif config.trace == "diurnal":
        hours = (np.arange(minutes) + 0.5) / HOUR_MINUTES
        shape = config.valley + (1 - config.valley) * (1 - np.cos(2 * math.pi * (hours - NIGHT_H) / DAY_H)) / 2
    else:
        shape = np.resize(recorded(located(config.trace)), minutes)
    if config.rps is None and config.trace in {"constant", "diurnal"}:
        raise RequestError("plan.rps is not set: say how many requests per second come at the peak, plan.rps=100000")
    if not shape.max() > 0:
        raise RequestError(f"plan.trace={config.trace} holds no request in its first {config.hours} h; raise plan.hours")
    peak = 1.0 if config.rps is None else config.rps / float(shape.max())
    scaled: Floats = shape * peak * (1 + config.growth)
    return scaled


def recorded(file: Path) -> Floats:
    """Requests/s of each whole minute of a recording; RequestError, with the line, where it is none.

    One column: timestamps, counted. Two, separated by a comma: a time, and the rate from then until the next; the last holds as
    long as the one before. What is left of a last minute that is not whole is dropped; less than a minute in all is one rate.
    """
    rows = sorted(_rows(file))
    times = np.array([time for time, _ in rows])
    if len(rows) < 2 or times[-1] == times[0]:
        raise RequestError(f"plan.trace={file} has {len(rows)} line(s), no time between them; give two at least")
    times -= times[0]
    if times[-1] > LONGEST_H * 3600:
        raise RequestError(f"plan.trace={file} is of {times[-1] / 3600:.0f} h; {LONGEST_H} h are the most that are read")
    if rows[0][1] is None:
        if times[-1] < MINUTE_S:
            return np.array([(times.size - 1) / times[-1]])
        whole = int(times[-1] // MINUTE_S)
        return np.bincount((times // MINUTE_S).astype(np.int64))[:whole] / MINUTE_S
    steps = np.append(times, times[-1] + (times[-1] - times[-2]))
    carried = np.append(0.0, np.cumsum(np.array([rate for _, rate in rows]) * np.diff(steps)))  # requests until each step
    if steps[-1] < MINUTE_S:
        return np.array([carried[-1] / steps[-1]])
    edges = np.arange(int(steps[-1] // MINUTE_S) + 1) * MINUTE_S  # a minute may hold several steps, or begin within one
    minutes: Floats = np.diff(np.interp(edges, steps, carried)) / MINUTE_S
    return minutes


def _rows(file: Path) -> Iterator[tuple[float, float | None]]:
    """The time of each line in seconds, and its rate where it has one; a first line of words is a head and is skipped."""
    columns = set()
    with file.open(encoding="ascii", errors="replace") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), ""), 1):
            if len(line) > LONGEST_LINE or number > MOST_LINES:
                raise RequestError(f"plan.trace={file}: line {number} is beyond {LONGEST_LINE} bytes or {MOST_LINES} lines")
            if not (text := line.strip()):
                continue
            first, comma, second = text.partition(",")
            try:
                row = _seconds(first.strip()), _rate(second) if comma else None
            except ValueError:
                if number == 1 and text[0].isalpha():
                    continue
                raise _refused(file, number, text) from None
            columns.add(row[1] is None)
            if len(columns) > 1:
                raise RequestError(f"plan.trace={file}: line {number} has another number of columns than those before it")
            yield row


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        told = datetime.fromisoformat(text)
        seconds = (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    if not math.isfinite(seconds):
        raise ValueError(text)
    return seconds


def _rate(text: str) -> float:
    rate = float(text)
    if not (math.isfinite(rate) and rate >= 0):
        raise ValueError(text)
    return rate


def _refused(file: Path, number: int, text: str) -> RequestError:
    return RequestError(
        f"plan.trace={file}: line {number} is {text[:SHOWN]!r}; expected a timestamp (1.25, 2026-01-02T03:04:05Z), or that and "
        "requests per second after a comma (3600,1250)"
    )
