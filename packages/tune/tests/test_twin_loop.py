"""The compiled loop against a slow one written the other way round: processes that wait for each other, one event at a time.

Times are multiples of 1/8 ms, so that sums are exact, many things happen at one instant, and results must be equal.
"""

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from marline.tune._twin_loop import serve

Worker = Generator[tuple[str, Any], Any, None]
LARGEST = 6


@dataclass(frozen=True)
class Case:
    arrivals_ms: list[float]
    rows: list[list[list[float]]]  # by batch size and draw: pre, inference, post
    draws: list[int]
    batch_size: int
    delay_ms: int
    workers: int
    shared: bool
    batch_ms: float
    request_ms: float
    queue: int
    expiry_ms: float

    def served(self) -> tuple[list[float], list[int], list[float]]:
        """What the compiled loop makes of it."""
        rows = np.array([[[0.0] * 3] * len(self.rows[0]), *self.rows])
        latencies, batches, spent = serve(
            np.array(self.arrivals_ms),
            rows,
            np.array(self.draws),
            self.batch_size,
            self.delay_ms,
            self.workers,
            self.shared,
            self.batch_ms,
            self.request_ms,
            self.queue,
            self.expiry_ms,
        )
        return latencies.tolist(), batches.tolist(), spent.tolist()


@dataclass
class Slow:
    """TorchServe as its threads see it: a lock, a queue with a timeout, a clock of whole milliseconds."""

    case: Case
    now: float = 0.0
    events: list[tuple[float, int, int, Callable[[], None]]] = field(default_factory=list)
    count: int = 0
    queue: deque[int] = field(default_factory=deque)
    taker: tuple[Worker, int] | None = None  # who waits for a job, and under which ticket
    locked: bool = False
    lockers: deque[Worker] = field(default_factory=deque)
    used: bool = False
    users: deque[Worker] = field(default_factory=deque)
    formed: int = 0

    def run(self) -> tuple[list[float], list[int]]:
        """Latencies and batch numbers by arrival."""
        self.latencies, self.batch_of = [math.inf] * len(self.case.arrivals_ms), [-1] * len(self.case.arrivals_ms)
        for index, instant in enumerate(self.case.arrivals_ms):
            self.at(instant, lambda index=index: self.arrive(index), first=0)  # type: ignore[misc]
        for _ in range(self.case.workers):
            worker = self.worker()
            self.at(0.0, lambda worker=worker: self.go(worker, None))  # type: ignore[misc]
        while self.events:
            self.now, _, _, happen = heapq.heappop(self.events)
            happen()
        return self.latencies, self.batch_of

    def at(self, instant: float, happen: Callable[[], None], first: int = 1) -> None:
        self.count += 1
        heapq.heappush(self.events, (instant, first, self.count, happen))

    def arrive(self, index: int) -> None:
        if self.taker is not None:
            (worker, _), self.taker = self.taker, None
            self.go(worker, index)
        elif len(self.queue) < self.case.queue:
            self.queue.append(index)

    def give_up(self, ticket: int) -> None:
        if self.taker is not None and self.taker[1] == ticket:
            (worker, _), self.taker = self.taker, None
            self.go(worker, None)

    def go(self, worker: Worker, value: Any) -> None:
        asked, told = worker.send(value)
        if asked == "lock":
            self.lockers.append(worker)
            self.pass_on()
        elif asked == "sleep":
            self.at(self.now + told, lambda: self.go(worker, None))
        elif asked == "device":
            self.users.append(worker)
            self.let_in()
        elif self.queue:
            self.go(worker, self.queue.popleft())
        elif told is not None and told <= 0:
            self.go(worker, None)
        else:
            self.count += 1
            ticket = self.count
            self.taker = worker, ticket
            if told is not None:
                self.at(self.now + told, lambda: self.give_up(ticket), first=2)

    def pass_on(self) -> None:
        if self.lockers and not self.locked:
            self.locked = True
            self.go(self.lockers.popleft(), None)

    def let_in(self) -> None:
        if self.users and not self.used:
            self.used = True
            self.go(self.users.popleft(), None)

    def worker(self) -> Worker:
        case = self.case
        while True:
            yield "lock", None
            members = [(yield "take", None)]
            budget, mark = case.delay_ms, math.floor(self.now)
            for _ in range(case.batch_size - 1):
                job = yield "take", budget
                if job is None:
                    break
                budget, mark = budget - (math.floor(self.now) - mark), math.floor(self.now)
                if case.arrivals_ms[job] + case.expiry_ms > self.now:
                    members.append(job)
                if budget <= 0:
                    break
            number, self.formed, self.locked = self.formed, self.formed + 1, False
            self.at(self.now, self.pass_on, first=-1)
            for job in members:
                self.batch_of[job] = number
            pre, inference, post = case.rows[len(members) - 1][case.draws[number]]
            yield "sleep", case.batch_ms + case.request_ms * len(members) + pre
            if case.shared:
                yield "device", None
            yield "sleep", inference
            if case.shared:
                self.used = False
                self.at(self.now, self.let_in, first=-1)
            yield "sleep", post
            for job in members:
                late = self.now - case.arrivals_ms[job]
                self.latencies[job] = late if late < case.expiry_ms else math.inf


def eighths(least: int, most: int) -> st.SearchStrategy[float]:
    return st.integers(least, most).map(lambda number: number / 8)


@st.composite
def cases(draw: st.DrawFn, /, **fixed: Any) -> Case:
    gaps = draw(st.lists(eighths(0, 60), min_size=1, max_size=60))
    row = st.tuples(eighths(0, 16), eighths(1, 80), eighths(0, 16)).map(list)
    rows = draw(st.lists(st.lists(row, min_size=3, max_size=3), min_size=LARGEST, max_size=LARGEST))
    told = {
        "arrivals_ms": np.cumsum(gaps).tolist(),
        "rows": rows,
        "draws": draw(st.lists(st.integers(0, 2), min_size=len(gaps), max_size=len(gaps))),
        "batch_size": draw(st.integers(1, LARGEST)),
        "delay_ms": draw(st.integers(0, 12)),
        "workers": draw(st.integers(1, 4)),
        "shared": draw(st.booleans()),
        "batch_ms": draw(eighths(0, 8)),
        "request_ms": draw(eighths(0, 4)),
        "queue": draw(st.integers(1, 30)),
        "expiry_ms": draw(st.sampled_from([5.0, 20.0, 60.0, math.inf])),
    }
    return Case(**(told | fixed))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_the_compiled_loop_equals_the_slow_one(case: Case) -> None:
    latencies, batches, _ = case.served()

    assert Slow(case).run() == (latencies, batches)


@settings(deadline=None)
@given(cases())
def test_every_request_is_answered_refused_or_expired_in_batches_that_hold_what_they_may(case: Case) -> None:
    latencies, batches, spent = case.served()

    sizes = Counter(number for number in batches if number >= 0)
    assert sorted(sizes) == list(range(len(sizes)))
    assert max(sizes.values()) <= case.batch_size
    assert all(number >= 0 for number, latency in zip(batches, latencies, strict=True) if latency < math.inf)
    if case.expiry_ms == math.inf:
        assert sum(sizes.values()) == sum(latency < math.inf for latency in latencies)
        assert sum(spent) == np.sum([latency for latency in latencies if latency < math.inf])


@settings(deadline=None)
@given(cases(queue=1000, expiry_ms=math.inf))
def test_requests_are_taken_in_the_order_they_came_and_none_is_lost(case: Case) -> None:
    latencies, batches, _ = case.served()

    assert sorted(batches) == batches
    assert max(latencies) < math.inf


@settings(deadline=None)
@given(cases(queue=1000, expiry_ms=math.inf, delay_ms=0))
def test_without_a_delay_a_batch_is_never_more_than_two(case: Case) -> None:
    assert max(Counter(case.served()[1]).values()) <= 2


@settings(deadline=None)
@given(case=cases(batch_size=1), delay_ms=st.integers(0, 100))
def test_batches_of_one_never_wait(case: Case, delay_ms: int) -> None:
    other = Case(**{**vars(case), "delay_ms": delay_ms})

    assert case.served() == other.served()


@settings(deadline=None)
@given(cases(workers=1))
def test_one_worker_has_its_accelerator_alone(case: Case) -> None:
    assert Case(**{**vars(case), "shared": True}).served() == Case(**{**vars(case), "shared": False}).served()


def lone(batch_size: int, delay_ms: int, workers: int = 1) -> Sequence[float]:
    """Three requests that never meet; 4 ms in the model, 1 ms and 0.5 ms around it."""
    rows = [[[0.0, 4.0, 0.0]]] * LARGEST
    return Case([10.0, 510.5, 1000.0], rows, [0] * 3, batch_size, delay_ms, workers, True, 1.0, 0.5, 100, math.inf).served()[0]


def test_a_lone_request_pays_the_whole_delay_unless_batches_are_of_one() -> None:
    assert [5.5 + 7] * 3 == lone(4, 7) == lone(4, 7, workers=3)
    assert [5.5] * 3 == lone(1, 7)
    assert [5.5] * 3 == lone(4, 0)
