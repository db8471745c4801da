"""Benchmark `handler`: what the shared handler serves, and how safely, on real TorchServe beside what else users would take.

Throughput is compared in one sitting, contender after contender and back again (ABBA), with the same generator, input, batch
size and delay; a figure is the median of the ratios of passes. Models come from `nox -s archive`, environments for LitServe
and for a plain TorchServe are made in artifacts/.bench and kept. About eleven minutes on two cores once those are there.
"""

from collections.abc import Callable
from typing import Any

from marline.loadtest import measuring, wait_until_quiet
from packages.handler.bench.parts.bad_inputs import bad_inputs
from packages.handler.bench.parts.building import building
from packages.handler.bench.parts.elsewhere import elsewhere
from packages.handler.bench.parts.figure import failed
from packages.handler.bench.parts.nonces import nonces
from packages.handler.bench.parts.speed import against_others, emulated, near_the_graph

Figures = list[dict[str, Any]]
PARTS: tuple[Callable[[], Figures], ...] = (
    near_the_graph,
    against_others,
    emulated,
    building,
    bad_inputs,
    nonces,
    elsewhere,
)


def figures() -> Figures:
    """Every part's figures; a part that fails says so in its place, and the others still run."""
    with measuring("the benchmark of the handler"):
        return [row for part in PARTS for row in _figures(part)]


def _figures(part: Callable[[], Figures]) -> Figures:
    name = part.__name__.replace("_", " ")
    print(f"{name}: {(part.__doc__ or '').splitlines()[0]}", flush=True)
    quiet = wait_until_quiet()
    try:
        found = part()
    except Exception as error:  # whatever a contender, a download or a server did
        found = [failed(name, None, f"{type(error).__name__}: {str(error)[:600]}")]
    if not quiet:
        found = [{**row, "note": f"{row['note']}; other programs kept the machine busy as this began"} for row in found]
    return found
