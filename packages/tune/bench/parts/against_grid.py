"""How near the tuner comes to the best of a brute-force grid of real trials, and how near others come for the same price.

The tunings are those of `promises`. Of the grid's cells, the best ones and those that the tuner chose go into a final of longer
trials, as a chosen configuration is confirmed before anybody relies on it; the ratio is that of the finals.
"""

from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Any

from marline.core import project_root
from packages.tune.bench.parts.cells import DELAYS_MS, SIZES, Cell, Pace, measured_cell
from packages.tune.bench.parts.equal_price import Place
from packages.tune.bench.parts.grid_table import DEFAULT, Compared, chosen, page, rows
from packages.tune.bench.parts.kept import MEASURING, once
from packages.tune.bench.parts.promises import CURVES, SEEDS, promised
from packages.tune.bench.parts.tunings import MODEL, when_asked

COMPARED = ("rn50_t4_pytorch_eager_amp", "bert_base_s128_t4_trt_fp16", "rn50_a100_ort_trt_fp16")
FIRST_RPS, STEP, TRIAL_S = 60.0, 1.5, 10.0
SLOW_RPS = 10.0  # of the default, which carries little: what an overload leaves takes it half a minute
FINAL_STEP, FINAL_S = 1.06, 40.0
FINALISTS, NEAR = 3, 0.93  # how many of the best go into the final, and from which share of the best rate on
CODE = (*MEASURING, *(f"packages/tune/bench/parts/{name}.py" for name in ("cells", "tunings")))


def against_grid(*keys: str) -> list[dict[str, Any]]:
    """Three emulated curves, or those named: 6 x 5 measured cells each, TPE and random search too; writes docs/grid/KEY.md."""
    found: list[dict[str, Any]] = []
    for curve in (curve for curve in CURVES if curve[0] in (keys or COMPARED)):
        one = compared(curve)
        told = rows(one)
        file = project_root() / "docs" / "grid" / f"{one.key}.md"
        file.parent.mkdir(exist_ok=True)
        file.write_text(page(one, told))
        found += told
    return found


def compared(curve: tuple[str, int, int]) -> Compared:
    """Everything of one curve, as it is kept or measured now."""
    key, scale, slo_ms = curve
    words = (f"model={MODEL}", f"accelerator={key}", f"time_scale={scale}", f"tune.slo_ms={slo_ms}")
    runs = [promised(curve, seed) for seed in SEEDS]
    with when_asked(*words) as started:

        def cell(kind: str, place: Place, pace: Pace) -> Cell:
            measure, asked = partial(measured_cell, started, pace, *place), [words, asdict(pace)]
            return Cell(**once(f"{kind}-{key}-{place[0]}-{place[1]}", measure, asked=asked, code=CODE))

        every = (DEFAULT, *product(SIZES, DELAYS_MS))  # the tuner may keep the default
        first_rps = {place: SLOW_RPS if place == DEFAULT else FIRST_RPS for place in every}
        cells = {place: cell("grid", place, Pace(first_rps[place], STEP, TRIAL_S)) for place in every}
        ranked = sorted(cells, key=lambda place: -cells[place].rps)
        near = [place for place in ranked if cells[place].rps >= NEAR * cells[ranked[0]].rps][:FINALISTS]
        finalists = sorted({*near, *map(chosen, runs)})
        finals = {place: cell("final", place, Pace(cells[place].rps, FINAL_STEP, FINAL_S)) for place in finalists}
    return Compared(key, scale, slo_ms, cells, finals, runs)
