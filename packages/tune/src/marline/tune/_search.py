"""The strategy `grid`: the configuration with the highest rate within the objective, by trying every one for real.

The service curve says where to begin with each: its capacity is B / (t(B) + overhead), and a queue that must stay short at
the 99th percentile carries about 0.6 of that. Everything after the first trial follows what was measured.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

from marline.core import TuneConfig
from marline.tune._service import Point
from marline.tune._setting import DEFAULT_BATCH_SIZE, DEFAULT_DELAY_MS, Setting
from marline.tune._trial import Trial

OVERHEAD_BATCH_MS, OVERHEAD_REQUEST_MS = 4.0, 0.4  # HTTP and IPC, fitted on eight TorchServe configurations on two cores
FIRST = 0.6
UP = ((4.0, 2.0), (2.0, 1.5), (0.0, 1.2))  # (slack above, factor)
DOWN = 0.7
BEAT = 1.05  # a gain smaller than this is not looked for
CLOSE = 1.1  # a bracket this narrow is not worth another trial

Try = Callable[[Setting, float], Trial]


def default_of(config: TuneConfig) -> Setting:
    """TorchServe's own values, with the fewest workers that are tried."""
    return Setting(DEFAULT_BATCH_SIZE, DEFAULT_DELAY_MS, min(config.workers))


def grid(config: TuneConfig, batch_sizes: Iterable[int]) -> list[Setting]:
    """Every batch size with every delay and number of workers, the default aside; a batch of 1 waits for nobody."""
    triples = product({1, *batch_sizes}, config.max_batch_delays_ms, config.workers)
    settings = {Setting(size, delay if size > 1 else DEFAULT_DELAY_MS, workers) for size, delay, workers in triples}
    return sorted(settings - {default_of(config)})


def capacity_rps(curve: Sequence[Point], setting: Setting) -> float:
    """Requests per second of saturated workers: W B / (t(B) + o_batch + o_request B), t from the measured curve."""
    service_ms = next(point.p50_ms for point in curve if point.batch >= setting.batch_size)
    batch_ms = service_ms + OVERHEAD_BATCH_MS + OVERHEAD_REQUEST_MS * setting.batch_size
    return 1e3 * setting.workers * setting.batch_size / batch_ms


def search(
    settings: Iterable[Setting],
    curve: Sequence[Point],
    slo_ms: float,
    steps: int,
    run: Try,
    *,
    in_time: Callable[[], bool] = lambda: True,
) -> dict[Setting, Trial]:
    """The best trial within the objective of each setting that has one; the most promising setting goes first.

    Each gets at least one trial. One that cannot carry more than the best rate so far is given up.
    """
    best: dict[Setting, Trial] = {}
    to_beat_rps = 0.0
    for setting in sorted(settings, key=lambda one: -capacity_rps(curve, one)):
        capacity = capacity_rps(curve, setting) * calibration(best, curve)
        first = max(FIRST * capacity, min(BEAT * to_beat_rps, capacity))
        found = climb(setting, first, slo_ms, steps, to_beat_rps, run, in_time=in_time)
        if found is not None:
            best[setting] = found
            to_beat_rps = max(to_beat_rps, found.offered_rps)
    return best


def calibration(best: Mapping[Setting, Trial], curve: Sequence[Point]) -> float:
    """By how much the capacity formula has been exceeded so far; 1 where it was not: its overheads are another machine's."""
    exceeded = (trial.offered_rps / capacity_rps(curve, setting) for setting, trial in best.items())
    return max(1.0, *exceeded) if best else 1.0


def climb(
    setting: Setting,
    first_rps: float,
    slo_ms: float,
    steps: int,
    to_beat_rps: float,
    run: Try,
    *,
    in_time: Callable[[], bool] = lambda: True,
) -> Trial | None:
    """The trial with the highest rate within the objective that at most `steps` trials find; None where none was within.

    Ends early when the bracket [passed, failed] is narrow, when the setting cannot beat `to_beat_rps` any more, or when
    `in_time` says that further trials are not affordable. An invalid trial says nothing about the server: it is repeated at
    its rate; one that is invalid again shows a rate that cannot be measured on this machine, and a lower one is tried.
    """
    best: Trial | None = None
    low, high, rate, turn, again = 0.0, math.inf, first_rps, 0, False
    while turn < steps and (not (turn or again) or in_time()):
        trial = run(setting, rate)
        if not (trial.valid or again):
            again = True
            continue
        turn, again = turn + 1, False
        if trial.too_large:
            break
        if trial.within(slo_ms):
            best, low = trial, rate
        else:
            high = rate
        if high < CLOSE * max(low, to_beat_rps):
            break
        rate = next_rate(low, high, to_beat_rps=to_beat_rps, slack=slo_ms / trial.at_percentile_ms)
    return best


def next_rate(low: float, high: float, *, to_beat_rps: float = 0.0, slack: float = 1.0) -> float:
    """The rate to try between one that passed (0: none) and one that failed (inf: none); never one that cannot win.

    `slack` is how many times the objective is above what was seen; far below it, steps are longer.
    """
    if math.isinf(high):
        return low * next(factor for above, factor in UP if slack > above)
    if low == 0:
        return max(high * DOWN, min(BEAT * to_beat_rps, high))
    return math.sqrt(max(low, to_beat_rps) * high)
