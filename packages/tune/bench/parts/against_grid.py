"""How near the tuner comes to the best of a brute-force grid of real trials, and how near others come for the same price."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import optuna

from packages.handler.bench.parts.figure import figure
from packages.tune.bench.parts.cells import Cell, limits, measured_cell
from packages.tune.bench.parts.kept import MEASURING, once
from packages.tune.bench.parts.tunings import MODEL, tuned

# curve, time scale, objective in ms: the best rates are what two cores carry
CURVES = (
    ("rn50_t4_pytorch_eager_amp", 4, 400),
    ("bert_base_s128_t4_trt_fp16", 6, 300),
    ("rn50_a100_ort_trt_fp16", 10, 400),
)
SIZES, DELAYS_MS = (2, 4, 8, 16, 32, 64), (1, 2, 5, 10, 20)
DEFAULT = (1, 100)
REACHED, SHARE, TESTS = 0.97, 0.10, 6
DRAWS, SEEDS, SURE = 2000, 200, 0.95
CODE = (*MEASURING, "packages/tune/bench/parts/cells.py")

Found = Mapping[tuple[int, int], Cell]


def against_grid() -> list[dict[str, Any]]:
    """Three emulated curves, 6 x 5 measured cells each: the tuner's choice, TPE's and random search's against the best."""
    return [row for curve in CURVES for row in _rows(curve)]


def _rows(curve: tuple[str, int, int]) -> list[dict[str, Any]]:
    key, scale, slo_ms = curve
    words = (f"model={MODEL}", f"accelerator={key}", f"time_scale={scale}", f"tune.slo_ms={slo_ms}")
    axes = (f"tune.batch_sizes=[{','.join(map(str, SIZES))}]", f"tune.max_batch_delays_ms=[{','.join(map(str, DELAYS_MS))}]")
    result = once(f"grid-tuned-{key}", lambda: _kept(tuned(*words, *axes, "profile=standard")), asked=[*words, *axes])
    cells = {
        (size, delay): Cell(
            **once(f"grid-{key}-{size}-{delay}", partial(measured_cell, words, slo_ms, size, delay), asked=words, code=CODE)
        )
        for size, delay in (DEFAULT, *product(SIZES, DELAYS_MS))  # the tuner may keep the default
    }
    rates = {place: cell.rps for place, cell in cells.items()}
    best = max(rates, key=rates.__getitem__)
    chosen = (result["chosen"]["batch_size"], result["chosen"]["max_batch_delay_ms"])
    low, high = _interval(cells, chosen, SURE)
    reached = rates.get(chosen, 0.0) / rates[best]
    holds = True if low >= REACHED else False if high < REACHED else None
    spent = sum(cell.load_s for cell in cells.values())
    share, tests = result["load_seconds"] / spent, result["load_tests"]
    told = f"chose {chosen}, best {best} with {rates[best]:.1f}/s; promised {result['chosen']['rps']:.1f}/s"
    undecided = " UNDECIDED: the interval holds both" if holds is None else ""
    count = len(cells)
    rows = [
        figure(
            f"{key}: tuner's choice over the best cell",
            reached,
            "",
            REACHED,
            holds,
            count,
            f"95 % interval {low:.3f} to {high:.3f}{undecided}; {told}",
        ),
        figure(f"{key}: load tests beside the A/A pair", tests, "", TESTS, tests <= TESTS, tests, ""),
        figure(
            f"{key}: share of the grid's load seconds",
            share,
            "",
            SHARE,
            share <= SHARE,
            count,
            f"{result['load_seconds']:.0f} of {spent:.0f} s",
        ),
    ]
    for name, search in (("TPE", _tpe), ("random search", _random)):
        found = [_within_budget(cells, search(cells, seed), result["load_seconds"]) / rates[best] for seed in range(SEEDS)]
        note = f"one in ten is below {np.quantile(found, 0.1):.2f}; equal load seconds, on the measured cells"
        rows.append(figure(f"{key}: {name} over the best cell, median", float(np.median(found)), "", None, None, SEEDS, note))
    return rows


def _kept(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in ("chosen", "load_tests", "load_seconds", "noise", "compared", "answer")}


def _interval(cells: Found, chosen: tuple[int, int], sure: float) -> tuple[float, float]:
    """Bootstrap of the ratio: the blocks of each trial are drawn anew, the limits of all cells follow, and the best of them."""
    draw = np.random.default_rng(0)
    every = np.array([limits(cell, draw, DRAWS) for cell in cells.values()])  # [cells, draws]
    ratios = every[list(cells).index(chosen)] / every.max(axis=0)
    low, high = np.quantile(ratios, [(1 - sure) / 2, (1 + sure) / 2])
    return float(low), float(high)


def _within_budget(cells: Found, order: Callable[[], Any], seconds: float) -> float:
    """The best rate among the cells that a search asks for, until the next would cost more than is left; each is paid once."""
    best, seen = 0.0, set()
    for place in order():
        if place not in seen:
            seconds -= cells[place].load_s
            if seconds < 0:
                return best
        seen.add(place)
        best = max(best, cells[place].rps)
    return best


def _random(cells: Found, seed: int) -> Callable[[], Any]:
    places = list(cells)
    return lambda: (places[index] for index in np.random.default_rng(seed).permutation(len(places)))


def _tpe(cells: Found, seed: int) -> Callable[[], Any]:
    def order() -> Any:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        for _ in range(4 * len(cells)):
            asked = study.ask()
            place = (asked.suggest_categorical("size", SIZES), asked.suggest_categorical("delay", DELAYS_MS))
            yield place
            study.tell(asked, cells[place].rps)

    return order
