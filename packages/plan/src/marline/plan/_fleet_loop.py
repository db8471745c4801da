"""Many replicas behind one balancer, event by event: what `marline.tune`'s loop does for one server, for all at once.

That loop forms a whole batch in one event, because it knows what will arrive. Behind a balancer that looks at the replicas what
arrives at one depends on all others, so here the events of all are one heap: a gatherer that has waited long enough, a batch
that asks for its accelerator, a batch that is done. One replica alone gives, to the last bit, what `simulate` gives.

The balancer knows of every answer at once. `least outstanding` takes the replica with the fewest requests in it, and of several
the one that has had so many for the longest time: replicas with as many are in one list, so that a choice takes the same time
whatever their number.

Compiled; times are float64 milliseconds since an arbitrary start.
"""

import math
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Event = tuple[float, int, int, int, int, int]  # when, what, replica, first request of the batch, its size, its row of the table

WAITED, ASKS, DONE = range(3)
NONE = -1


class Rules(NamedTuple):
    """How every replica forms and serves batches."""

    table_ms: Floats  # [sizes, K, 3], see Service.table_ms
    draws: Integers  # [n] the row of the table that the k-th batch of all gets
    batch_size: int
    delay_ms: int
    shared: bool
    batch_ms: float
    request_ms: float
    queue: int


# Where a replica stands, by column. Of its queue: the first, the last, how many. Of the batch that is gathered: the first, the
# last, how many (0: none is), what is left of the delay and the whole ms at which that was counted last. Workers that hold no
# batch. Requests in it, and its neighbours in the list of replicas with as many.
FIRST, LAST, WAITING, HEAD, TAIL, SIZE, BUDGET, MARK, FREE, HELD, NEXT, PREVIOUS = range(12)
DUE, ALARM, DEVICE = range(3)  # when the batch leaves if nobody comes, when somebody looks, when the accelerator is free; in ms
FRONT, BACK = range(2)  # of a list of replicas


class Fleet(NamedTuple):
    """What changes."""

    at: Integers  # [replicas, 12]
    times_ms: Floats  # [replicas, 3]
    after: Integers  # [n] the request behind each in its queue or its batch
    lists: Integers  # [most + 1, 2] the replicas that hold so many requests
    counts: Integers  # batches that were formed, and the fewest requests that a replica holds


@njit(cache=True)
def play_fleet(arrivals_ms: Floats, rules: Rules, replicas: int, workers: int, least: bool) -> tuple[Floats, int]:
    """Latencies [n] without HTTP (inf: refused), and how many batches were formed; in turn, or to the `least` outstanding."""
    count = arrivals_ms.size
    most = rules.queue + workers * rules.batch_size
    at, latencies = np.zeros((replicas, 12), np.int64), np.full(count, np.inf)
    fleet = Fleet(at, np.zeros((replicas, 3)), np.full(count, NONE), np.full((most + 1, 2), NONE), np.zeros(2, np.int64))
    at[:, FREE] = workers
    for replica in range(replicas):
        _append(fleet, replica)
    events = [(0.0, DONE, 0, 0, 0, 0)]
    events.pop()
    for request in range(count):
        now = arrivals_ms[request]
        while events and events[0][0] < now:
            _happen(heappop(events), events, fleet, rules, arrivals_ms, latencies, least)
        replica = fleet.lists[fleet.counts[1], FRONT] if least else request % replicas
        if _arrive(now, request, replica, events, fleet, rules) and least:
            _count(fleet, replica, 1)
    while events:
        _happen(heappop(events), events, fleet, rules, arrivals_ms, latencies, least)
    return latencies, fleet.counts[0]


@njit(cache=True)
def _arrive(now: float, request: int, replica: int, events: list[Event], fleet: Fleet, rules: Rules) -> bool:
    """A request comes; False where it is refused."""
    gathers = fleet.at[replica, SIZE] > 0
    if gathers or fleet.at[replica, FREE] > 0:
        _take(now, request, replica, events, fleet, rules)
        if not gathers:
            _wait(now, replica, events, fleet, rules)
        return True
    if fleet.at[replica, WAITING] >= rules.queue:
        return False
    if fleet.at[replica, WAITING] == 0:
        fleet.at[replica, FIRST] = request
    else:
        fleet.after[fleet.at[replica, LAST]] = request
    fleet.at[replica, LAST] = request
    fleet.at[replica, WAITING] += 1
    return True


@njit(cache=True)
def _take(now: float, request: int, replica: int, events: list[Event], fleet: Fleet, rules: Rules) -> None:
    """A worker that gathers, or begins to, takes a request; the batch leaves where it is full or its time is up."""
    clock = math.floor(now)
    if fleet.at[replica, SIZE] == 0:
        fleet.at[replica, FREE] -= 1
        fleet.at[replica, HEAD] = request
        fleet.at[replica, BUDGET] = rules.delay_ms
    else:
        fleet.after[fleet.at[replica, TAIL]] = request
        fleet.at[replica, BUDGET] -= clock - fleet.at[replica, MARK]
    fleet.at[replica, TAIL], fleet.at[replica, MARK] = request, clock
    fleet.at[replica, SIZE] += 1
    if fleet.at[replica, SIZE] == rules.batch_size or fleet.at[replica, BUDGET] <= 0:
        _leave(now, replica, events, fleet, rules)
    else:
        fleet.times_ms[replica, DUE] = now + fleet.at[replica, BUDGET]


@njit(cache=True)
def _wait(now: float, replica: int, events: list[Event], fleet: Fleet, rules: Rules) -> None:
    """Have somebody look when a batch that is still gathered can be due at the earliest."""
    if fleet.at[replica, SIZE] > 0:  # what comes later moves it by the fraction of a millisecond at which that comes
        fleet.times_ms[replica, ALARM] = math.floor(now) + rules.delay_ms
        heappush(events, (fleet.times_ms[replica, ALARM], WAITED, replica, 0, 0, 0))


@njit(cache=True)
def _leave(now: float, replica: int, events: list[Event], fleet: Fleet, rules: Rules) -> None:
    """A batch is formed: its worker prepares it, and then it asks for the accelerator."""
    size, row = fleet.at[replica, SIZE], rules.draws[fleet.counts[0]]
    fleet.counts[0] += 1
    fleet.at[replica, SIZE] = 0
    overhead = rules.batch_ms + rules.request_ms * size
    heappush(events, (now + overhead + rules.table_ms[size, row, 0], ASKS, replica, fleet.at[replica, HEAD], size, row))


@njit(cache=True)
def _happen(
    event: Event,
    events: list[Event],
    fleet: Fleet,
    rules: Rules,
    arrivals_ms: Floats,
    latencies: Floats,
    least: bool,
) -> None:
    now, what, replica, head, size, row = event
    if what == WAITED:
        if fleet.at[replica, SIZE] > 0 and fleet.times_ms[replica, ALARM] == now:  # else that batch has left
            if fleet.times_ms[replica, DUE] > now:
                fleet.times_ms[replica, ALARM] = fleet.times_ms[replica, DUE]
                heappush(events, (fleet.times_ms[replica, DUE], WAITED, replica, 0, 0, 0))
            else:
                _leave(now, replica, events, fleet, rules)
    elif what == ASKS:
        begins = max(now, fleet.times_ms[replica, DEVICE]) if rules.shared else now
        fleet.times_ms[replica, DEVICE] = begins + rules.table_ms[size, row, 1]
        ends = fleet.times_ms[replica, DEVICE] + rules.table_ms[size, row, 2]
        heappush(events, (ends, DONE, replica, head, size, row))
    else:
        for _ in range(size):
            latencies[head] = now - arrivals_ms[head]
            head = fleet.after[head]
        if least:
            _count(fleet, replica, -size)
        fleet.at[replica, FREE] += 1
        _gather(now, replica, events, fleet, rules)


@njit(cache=True)
def _gather(now: float, replica: int, events: list[Event], fleet: Fleet, rules: Rules) -> None:
    """A worker is free: it takes what waits, and then waits for more where its batch is not full."""
    if fleet.at[replica, SIZE] > 0:  # another one gathers, and it has taken all
        return
    while fleet.at[replica, WAITING] > 0 and (fleet.at[replica, FREE] > 0 or fleet.at[replica, SIZE] > 0):
        request = fleet.at[replica, FIRST]
        fleet.at[replica, FIRST] = fleet.after[request]
        fleet.at[replica, WAITING] -= 1
        _take(now, request, replica, events, fleet, rules)
    _wait(now, replica, events, fleet, rules)


@njit(cache=True)
def _count(fleet: Fleet, replica: int, change: int) -> None:
    """A replica holds more or fewer requests: it goes to the back of the list of those with as many."""
    held, before, behind = fleet.at[replica, HELD], fleet.at[replica, PREVIOUS], fleet.at[replica, NEXT]
    if before == NONE:
        fleet.lists[held, FRONT] = behind
    else:
        fleet.at[before, NEXT] = behind
    if behind == NONE:
        fleet.lists[held, BACK] = before
    else:
        fleet.at[behind, PREVIOUS] = before
    fleet.at[replica, HELD] += change
    _append(fleet, replica)
    fleet.counts[1] = min(fleet.counts[1], fleet.at[replica, HELD])
    while fleet.lists[fleet.counts[1], FRONT] == NONE:
        fleet.counts[1] += 1


@njit(cache=True)
def _append(fleet: Fleet, replica: int) -> None:
    held = fleet.at[replica, HELD]
    last = fleet.lists[held, BACK]
    fleet.at[replica, NEXT], fleet.at[replica, PREVIOUS] = NONE, last
    if last == NONE:
        fleet.lists[held, FRONT] = replica
    else:
        fleet.at[last, NEXT] = replica
    fleet.lists[held, BACK] = replica
