"""What a fleet does at one load: latencies of its requests, and how few replicas or how much load that leaves within the SLO.

By level, in milliseconds, in place of request by request. Behind round robin every N-th request of a Poisson stream goes to a
replica, so the gaps there are sums of N exponential ones (Erlang-N), and one replica stands for all. Behind least outstanding
they are not independent, and a smaller fleet with as much load for each replica stands for the whole.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from marline.loadtest import percentile as nearest_rank
from marline.plan._fleet_loop import Rules, play_fleet
from marline.tune import Prediction, Service, Setting, at_rate, predict

Floats = NDArray[np.float64]
REQUESTS = 200_000  # of a load that is computed by level, at least
FEWER, ROUGH = (
    1_024,
    64,
)  # replicas that stand for more of them behind least outstanding: for a level, and while one is looked for
EACH = 1_500  # requests for each of them: that many dozen batches after the start, at which all are in step
SETTLED = 0.1  # of the requests come first and are not judged: the fleet begins empty
FULL = 0.98  # of what replicas carry at most: closer to it a queue takes longer to settle than anything is simulated


@dataclass(frozen=True, slots=True)
class Level:
    """What so many replicas do at a load, in requests/s over all; infinite where more requests were refused than p allows."""

    rps: float
    replicas: int
    p50_ms: float
    p99_ms: float
    tail_ms: float  # the percentile of the objective
    mean_batch: float


@dataclass(frozen=True, kw_only=True)
class Twin:
    """A replica as it was tuned, what is asked of it, and how requests are dealt to several."""

    service: Service
    setting: Setting
    slo_ms: float
    percentile: float
    balancing: str
    seed: int = 0
    _known: dict[tuple[float, int, int], Level] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def alone(self) -> Prediction:
        """The highest rate of one replica that takes a Poisson stream as it comes, and its most."""
        return predict(self.service, [self.setting], self.slo_ms, self.percentile, seed=self.seed)[0]

    def carries(self, replicas: int) -> float:
        """The load up to which replicas have a steady state worth the name."""
        return FULL * replicas * self.alone.saturated_rps

    def level(self, rps: float, replicas: int, fewer: int = FEWER) -> Level:
        """What the replicas do at a load of Poisson arrivals in the long run; at most so many `fewer` are simulated."""
        key = (round(rps, 6), replicas, fewer)
        if key not in self._known:
            in_turn = self.balancing == "round_robin"
            self._known[key] = _by_gaps(self, rps, replicas) if in_turn else _by_fewer(self, rps, replicas, fewer)
        return self._known[key]

    def holds(self, rps: float, replicas: int) -> bool:
        """Whether that is within the objective."""
        return rps <= self.carries(replicas) and self.level(rps, replicas, ROUGH).tail_ms <= self.slo_ms

    def fewest(self, rps: float) -> int | None:
        """The smallest number of replicas that holds the objective at a load, by bisection; None where none does."""
        if not self.alone.rps:
            return None
        if not rps:
            return 1
        low, high = math.ceil(rps / self.carries(1)) - 1, max(1, math.ceil(rps / self.alone.rps))
        while not self.holds(rps, high):  # several are seldom worse than one, which took the stream as it comes
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.holds(rps, middle) else (middle, high)
        return high

    def most(self, replicas: int) -> float:
        """The highest load within the objective, to 0.5 %, by bisection; 0 where not even a lone request is."""
        if not self.alone.rps:
            return 0.0
        low, high = 0.0, self.carries(replicas)
        while high - low > 0.005 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if self.holds(middle, replicas) else (low, middle)
        return low

    def play(self, arrivals_s: Floats, replicas: int) -> tuple[Floats, float]:
        """Latencies in ms by arrival (inf: refused) and the mean batch, every request simulated behind the balancer."""
        if self.setting.batch_size > self.service.largest:
            raise ValueError(f"{self.setting} is beyond the service curve, which ends at batches of {self.service.largest}")
        service, table_ms = self.service, self.service.table_ms()
        draws = np.random.default_rng(self.seed).integers(table_ms.shape[1], size=arrivals_s.size)
        rules = Rules(
            table_ms,
            draws,
            self.setting.batch_size,
            self.setting.max_batch_delay_ms,
            service.shared,
            service.batch_ms,
            service.request_ms,
            service.queue,
        )
        least = self.balancing == "least_outstanding"
        latencies, batches = play_fleet(arrivals_s * 1e3, rules, replicas, self.setting.workers, least)
        served = int(np.count_nonzero(np.isfinite(latencies)))
        return latencies + service.http_ms, served / max(1, batches)

    def judged(self, latencies_ms: Floats, mean_batch: float, rps: float, replicas: int) -> Level:
        """The percentiles of latencies that were simulated; those of the whole fleet, not means over replicas."""
        p50, p99, tail = (nearest_rank(latencies_ms, p) for p in (50, 99, self.percentile))
        return Level(rps, replicas, p50, p99, tail, mean_batch)


def _by_gaps(twin: Twin, rps: float, replicas: int) -> Level:
    gaps = np.random.default_rng([twin.seed, 2]).gamma(replicas, size=REQUESTS)
    told = at_rate(twin.service, twin.setting, rps / replicas, twin.percentile, gaps=gaps, seed=twin.seed)
    return Level(rps, replicas, told.p50_ms, told.p99_ms, told.tail_ms, told.mean_batch)


def _by_fewer(twin: Twin, rps: float, replicas: int, fewer: int) -> Level:
    played = min(replicas, fewer)
    gaps = np.random.default_rng([twin.seed, 2]).standard_exponential(max(REQUESTS, EACH * played))
    latencies_ms, mean_batch = twin.play(np.cumsum(gaps) / gaps.mean() * replicas / (rps * played), played)
    return twin.judged(latencies_ms[int(SETTLED * gaps.size) :], mean_batch, rps, replicas)
