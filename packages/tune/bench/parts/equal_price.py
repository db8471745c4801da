"""What searches that know nothing of the server reach on a measured grid, for as many seconds of load as the tuner spent."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import optuna

from packages.tune.bench.parts.cells import DELAYS_MS, SIZES, Cell

SEARCHES = 200

Place = tuple[int, int]  # batch size, delay in ms
Order = Callable[[Mapping[Place, Cell], int], Iterator[Place]]  # of the cells, by a seed


def searched(cells: Mapping[Place, Cell], seconds: float) -> dict[str, list[float]]:
    """The best rate that each of 200 searches by TPE and at random finds within `seconds` of load, over the best cell's."""
    most = max(cell.rps for cell in cells.values())
    orders: dict[str, Order] = {"TPE": _tpe, "random search": _random}
    return {
        name: [_within(cells, order(cells, seed), seconds) / most for seed in range(SEARCHES)] for name, order in orders.items()
    }


def _within(cells: Mapping[Place, Cell], order: Iterator[Place], seconds: float) -> float:
    """The best rate among the cells that a search asks for, until the next would cost more than is left; each is paid once."""
    best, seen = 0.0, set()
    for place in order:
        if place not in seen:
            seconds -= cells[place].load_s
            if seconds < 0:
                return best
        seen.add(place)
        best = max(best, cells[place].rps)
    return best


def _random(cells: Mapping[Place, Cell], seed: int) -> Iterator[Place]:
    places = list(cells)
    return (places[index] for index in np.random.default_rng(seed).permutation(len(places)))


def _tpe(cells: Mapping[Place, Cell], seed: int) -> Iterator[Place]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for _ in range(4 * len(cells)):
        asked = study.ask()
        place = (asked.suggest_categorical("size", SIZES), asked.suggest_categorical("delay", DELAYS_MS))
        yield place
        study.tell(asked, cells[place].rps)
