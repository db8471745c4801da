"""Benchmark `deploy`: swaps under load, start and stop, what stays after a kill, and tokens that are renewed under load.

Everything runs on real TorchServe with digits_cnn, load is sent by locust. About eight minutes on two cores.
One part alone: `python -m packages.deploy.bench.deploy swaps` (or bad_versions, starts, stops, tokens).
"""

import json
import sys
from collections.abc import Callable
from typing import Any

from marline.loadtest import measuring, wait_until_quiet
from packages.deploy.bench.parts.starts import starts
from packages.deploy.bench.parts.stops import stops
from packages.deploy.bench.parts.swaps import bad_versions, swaps
from packages.deploy.bench.parts.tokens import tokens
from packages.handler.bench.parts.figure import failed

Figures = list[dict[str, Any]]
PARTS: tuple[Callable[[], Figures], ...] = (swaps, bad_versions, starts, stops, tokens)


def figures(only: str | None = None) -> Figures:
    """Every part's figures, or one part's; a part that fails says so in its place, and the others still run."""
    with measuring("the benchmark of deploy"):
        return [row for part in PARTS if only in {None, part.__name__} for row in _figures(part)]


def _figures(part: Callable[[], Figures]) -> Figures:
    print(f"{part.__name__}: {(part.__doc__ or '').splitlines()[0]}", flush=True)
    wait_until_quiet()
    try:
        return part()
    except Exception as error:  # whatever a server, a download or a load generator did
        return [failed(part.__name__.replace("_", " "), None, f"{type(error).__name__}: {str(error)[:600]}")]


if __name__ == "__main__":
    print(json.dumps(figures(sys.argv[1]), indent=1))
