"""Benchmark `tune`: whether the twin tells the truth, how good the tuner's choice is, and what its promises are worth.

Real TorchServe and real locust, on emulated accelerators and on a CPU. Hours on two cores; every result is kept as soon as it
is there, so an interrupted benchmark goes on where it was. One part alone: `python -m packages.tune.bench.tune PART`, and
one curve of a grid `python -m packages.tune.bench.tune against_grid CURVE`.
A part that loads a server of its own holds the machine's measurement lock; one that runs a whole tuning leaves that to it.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from marline.loadtest import wait_until_quiet
from packages.handler.bench.parts.figure import failed
from packages.tune.bench.parts.accuracy import accuracy
from packages.tune.bench.parts.against_grid import against_grid
from packages.tune.bench.parts.cpu_gain import cpu_gain
from packages.tune.bench.parts.overloaded import overloaded
from packages.tune.bench.parts.pause import pause
from packages.tune.bench.parts.promises import promises
from packages.tune.bench.parts.resume import resume
from packages.tune.bench.parts.speed import speed

Figures = list[dict[str, Any]]
PARTS: tuple[Callable[..., Figures], ...] = (
    speed,
    accuracy,
    against_grid,
    promises,
    pause,
    overloaded,
    cpu_gain,
    resume,
)


def figures(only: str | None = None, *told: str) -> Figures:
    """Every part's figures, or one part's, asked what is `told`; one that fails says so, and the others still run."""
    return [row for part in PARTS if only in {None, part.__name__} for row in _figures(part, *told)]


def _figures(part: Callable[..., Figures], *told: str) -> Figures:
    print(f"{part.__name__}: {(part.__doc__ or '').splitlines()[0]}", flush=True)
    wait_until_quiet()
    try:
        return part(*told)
    except Exception as error:  # whatever a server or a load generator did
        return [failed(part.__name__.replace("_", " "), None, f"{type(error).__name__}: {str(error)[:600]}")]


if __name__ == "__main__":
    print(json.dumps(figures(*sys.argv[1:]), indent=1))
