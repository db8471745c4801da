"""The twin of a TorchServe: what a setting would do under a load, computed in milliseconds in place of measured in minutes.

    latencies_ms = simulate(service, Setting(8, 5, 2), arrivals_s)

`_twin_loop.py` is the loop itself. Everything here is deterministic for a seed; all rates are compared on one arrival schedule,
stretched (common random numbers), so that two predictions differ by their settings and not by their luck.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from marline.loadtest import percentile as nearest_rank
from marline.tune._service import Service
from marline.tune._setting import Setting
from marline.tune._twin_loop import STAGES, serve

Floats = NDArray[np.float64]
REQUESTS = 40_000  # of one simulated load: its p99 varies by 2 to 4 % between seeds where the queue is long, by less elsewhere
SETTLED = 0.05  # of them come first and are not judged: the queue begins empty
IDLE = 0.01  # of the saturated rate: requests that meet nobody
LADDER = (
    0.98,
    0.94,
    0.88,
    0.8,
    0.7,
    0.58,
    0.45,
    0.3,
    0.15,
    0.05,
)  # of the saturated rate: where the highest is looked for
CLOSE = 1.003  # the bracket in which a highest rate is left


@dataclass(frozen=True, slots=True)
class Prediction:
    """The highest rate that a setting carries within the objective (0: none), the figures at that rate, and its most."""

    setting: Setting
    rps: float
    p50_ms: float
    p99_ms: float
    tail_ms: float  # the percentile that was asked for
    mean_batch: float
    saturated_rps: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a setting does at a stated rate; `shares` says where the mean request spends its time, by stage, and sums to 1."""

    setting: Setting
    rps: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    tail_ms: float  # the percentile that was asked for
    mean_batch: float
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Played:
    """One simulated load: latencies in ms by arrival (inf: refused or expired), requests a batch, mean ms by stage."""

    latencies_ms: Floats
    mean_batch: float
    stages_ms: Mapping[str, float]


def simulate(
    service: Service,
    setting: Setting,
    arrivals_s: ArrayLike,
    *,
    queue: int | None = None,
    expiry_ms: float = math.inf,
    seed: int = 0,
) -> Floats:
    """Latencies in ms, float64 [n] by arrival; inf where a request was refused or expired (clientTimeout).

    `arrivals_s` are the instants in seconds at which requests are sent, float [n], ascending, of any process. ValueError where
    they are not, and where the setting's batches are larger than the service curve. `queue` is the service's own unless told.
    """
    return play(service, setting, arrivals_s, queue=queue, expiry_ms=expiry_ms, seed=seed).latencies_ms


def play(
    service: Service,
    setting: Setting,
    arrivals_s: ArrayLike,
    *,
    queue: int | None = None,
    expiry_ms: float = math.inf,
    seed: int = 0,
) -> Played:
    """`simulate`, with the batches and where the time went."""
    arrivals_ms = np.asarray(arrivals_s, np.float64) * 1e3
    if arrivals_ms.ndim != 1 or not np.isfinite(arrivals_ms).all() or (np.diff(arrivals_ms) < 0).any():
        raise ValueError("arrivals_s must be one row of finite instants in ascending order")
    if setting.batch_size > service.largest:
        raise ValueError(f"{setting} is beyond the service curve, which ends at batches of {service.largest}")
    table_ms = service.table_ms()
    draws = np.random.default_rng(seed).integers(table_ms.shape[1], size=arrivals_ms.size)
    waiting = service.queue if queue is None else queue
    return _played(service, table_ms, setting, arrivals_ms, draws, waiting, expiry_ms)


def predict(
    service: Service,
    settings: Sequence[Setting],
    slo_ms: float,
    percentile: float,
    *,
    gaps: ArrayLike | None = None,
    seed: int = 0,
) -> list[Prediction]:
    """The highest rate of each setting at which the percentile of all latencies (nearest rank, as in a trial) is within it.

    A setting whose lone requests already miss the objective has none: it would break its promise whenever load is low. `gaps`
    are the times between arrivals of another process than Poisson's, float [n], in any unit: they are scaled to each rate.
    """
    table_ms, unit_ms, draws = service.table_ms(), _unit_ms(gaps, seed), _draws(service, gaps, seed)

    def at(setting: Setting, rps: float) -> Played:
        return _played(service, table_ms, setting, unit_ms / rps, draws, service.queue, math.inf)

    def within(setting: Setting, rps: float) -> bool:
        return _share_within(at(setting, rps).latencies_ms, slo_ms, percentile)

    found = []
    for setting in settings:
        saturated = saturated_rps(service, setting, seed=seed)
        rps = 0.0
        if within(setting, IDLE * saturated):
            low = next((share for share in LADDER if within(setting, share * saturated)), IDLE)
            high = min((share for share in LADDER if share > low), default=1.0)
            while high / low > CLOSE:
                middle = math.sqrt(low * high)
                low, high = (middle, high) if within(setting, middle * saturated) else (low, middle)
            rps = low * saturated
        played = at(setting, rps or IDLE * saturated)
        p50, p99, tail = (nearest_rank(_settled(played.latencies_ms), p) for p in (50, 99, percentile))
        found.append(Prediction(setting, rps, p50, p99, tail, played.mean_batch, saturated))
    return found


def at_rate(
    service: Service,
    setting: Setting,
    rps: float,
    percentile: float = 99.0,
    *,
    gaps: ArrayLike | None = None,
    seed: int = 0,
) -> Forecast:
    """What a setting does at `rps` requests per second in the long run; see `predict` for `gaps`."""
    arrivals_s = _unit_ms(gaps, seed) / rps / 1e3
    played = play(service, setting, arrivals_s, seed=seed)
    p50, p95, p99, tail = (nearest_rank(_settled(played.latencies_ms), p) for p in (50, 95, 99, percentile))
    total_ms = sum(played.stages_ms.values())
    shares = {name: ms / total_ms for name, ms in played.stages_ms.items()}
    return Forecast(setting, rps, p50, p95, p99, tail, played.mean_batch, shares)


def saturated_rps(service: Service, setting: Setting, *, batches: int = 400, seed: int = 0) -> float:
    """Requests per second where every worker always finds more than it can take."""
    count = batches * setting.batch_size * setting.workers
    latencies = simulate(service, setting, np.zeros(count), queue=count, seed=seed)
    # The first and the last batches run while not all workers do.
    begin, end = np.quantile(latencies, [0.1, 0.9])
    return float(1e3 * np.count_nonzero((latencies > begin) & (latencies <= end)) / (end - begin))


def _played(
    service: Service,
    table_ms: Floats,
    setting: Setting,
    arrivals_ms: Floats,
    draws: NDArray[np.int64],
    queue: int,
    expiry_ms: float,
) -> Played:
    latencies, batch_of, spent = serve(
        arrivals_ms,
        table_ms,
        draws,
        setting.batch_size,
        setting.max_batch_delay_ms,
        setting.workers,
        service.shared,
        service.batch_ms,
        service.request_ms,
        queue,
        expiry_ms,
    )
    batched = int(np.count_nonzero(batch_of >= 0))
    stages_ms = {name: ms / max(1, batched) for name, ms in zip(STAGES, spent.tolist(), strict=True)}
    batches = int(batch_of.max(initial=-1)) + 1
    return Played(latencies + service.http_ms, float(batched / max(1, batches)), stages_ms | {"http": service.http_ms})


def _unit_ms(gaps: ArrayLike | None, seed: int) -> Floats:
    """Arrivals in ms at one request per second."""
    drawn = np.random.default_rng([seed, 1]).standard_exponential(REQUESTS) if gaps is None else np.asarray(gaps, np.float64)
    instants: Floats = np.cumsum(drawn) / drawn.mean() * 1e3
    return instants


def _draws(service: Service, gaps: ArrayLike | None, seed: int) -> NDArray[np.int64]:
    count = REQUESTS if gaps is None else np.asarray(gaps).size
    return np.random.default_rng(seed).integers(max(len(point.rows_ms) for point in service.points), size=count)


def _settled(latencies_ms: Floats) -> Floats:
    settled: Floats = latencies_ms[int(SETTLED * latencies_ms.size) :]
    return settled


def _share_within(latencies_ms: Floats, slo_ms: float, percentile: float) -> bool:
    """Whether the nearest-rank percentile is within the objective, without sorting."""
    judged = _settled(latencies_ms)
    return int(np.count_nonzero(judged <= slo_ms)) > max(0, math.ceil(judged.size * (percentile / 100) - 1))
