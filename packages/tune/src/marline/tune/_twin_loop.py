"""TorchServe's batching loop, step by step, on numbers alone: `Model.pollBatch` and `WorkerThread` of TorchServe 0.12.

One first-in-first-out queue per model. A free worker takes the model's lock, waits for a first request, then gathers: it waits
for the next one as long as the delay is not used up, on a clock of whole milliseconds that is read after each one. The next
free worker gets the lock then. Nothing changes between two events, so the events of W workers in the order of their time are
all there is: a worker that is free, and a worker whose batch asks for the accelerator. What arrives is known beforehand and
only the holder of the lock takes from the queue, which is why a whole batch can be formed in one event.

Compiled; times are float64 milliseconds since an arbitrary start.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

STAGES = ("queue", "batch", "overhead", "pre", "device", "inference", "post")  # where the time of a request goes, in this order
QUEUE, BATCH, OVERHEAD, PRE, DEVICE, INFERENCE, POST = range(7)
HEAD, TAIL, WAITING = range(3)  # of the queue: the next to take, the next to arrive, and how many are in between, none refused


@njit(cache=True)
def serve(
    arrivals_ms: Floats,  # [n] ascending
    table_ms: Floats,  # [sizes, K, 3], see Service.table_ms
    draws: Integers,  # [n] the row of the table that the k-th batch gets
    batch_size: int,
    delay_ms: int,
    workers: int,
    shared: bool,
    batch_ms: float,
    request_ms: float,
    queue: int,
    expiry_ms: float,
) -> tuple[Floats, Integers, Floats]:
    """Latencies [n] (inf: refused or expired), the number of the batch of each request [n] (-1: none), and ms by stage [7].

    The stages add up what all requests of batches spent in each, whether their client still waited or not.
    """
    count = arrivals_ms.size
    latencies, batch_of, spent = np.full(count, np.inf), np.full(count, -1), np.zeros(7)
    refused, place = np.zeros(count, np.bool_), np.zeros(3, np.int64)
    at, asks = np.zeros(workers), np.zeros(workers, np.bool_)  # when each worker is free, or its batch asks for the accelerator
    since = np.arange(workers)  # the order in which that was settled, for what happens at the same instant
    members, sizes, rows = np.zeros((workers, batch_size), np.int64), np.zeros(workers, np.int64), np.zeros(workers, np.int64)
    unlocked, device_free, batches, events = 0.0, 0.0, 0, workers
    while True:
        worker = _next(at, since)
        if at[worker] == np.inf:
            return latencies, batch_of, spent
        since[worker] = events
        events += 1
        size, row = sizes[worker], rows[worker]
        if asks[worker]:
            begins = max(at[worker], device_free) if shared else at[worker]
            device_free = begins + table_ms[size, row, 1]
            ends = device_free + table_ms[size, row, 2]
            spent[DEVICE] += size * (begins - at[worker])
            for index in members[worker, :size]:
                latency = ends - arrivals_ms[index]
                latencies[index] = latency if latency < expiry_ms else np.inf  # an answer that comes later is not sent
            at[worker], asks[worker] = ends, False
            continue
        locked = max(at[worker], unlocked)
        _arrive(arrivals_ms, locked, queue, place, refused)
        if place[WAITING] == 0 and place[TAIL] == count:
            at[worker] = np.inf
            continue
        unlocked, size = _gather(
            arrivals_ms, locked, batch_size, delay_ms, expiry_ms, place, refused, members[worker], batch_of, batches, spent
        )
        sizes[worker], rows[worker] = size, draws[batches]
        batches += 1
        overhead, pre = batch_ms + request_ms * size, table_ms[size, rows[worker], 0]
        spent[OVERHEAD] += size * overhead
        for stage in range(3):
            spent[PRE if stage == 0 else DEVICE + stage] += size * table_ms[size, rows[worker], stage]
        at[worker], asks[worker] = unlocked + overhead + pre, True


@njit(cache=True)
def _next(at: Floats, since: Integers) -> int:
    """The worker to which something happens first."""
    worker = 0
    for other in range(1, at.size):
        if at[other] < at[worker] or (at[other] == at[worker] and since[other] < since[worker]):
            worker = other
    return worker


@njit(cache=True)
def _arrive(arrivals_ms: Floats, now: float, queue: int, place: Integers, refused: Booleans) -> None:
    """What came until now has found a place in the queue, or none."""
    while place[TAIL] < arrivals_ms.size and arrivals_ms[place[TAIL]] <= now:
        if place[WAITING] < queue:
            place[WAITING] += 1
        else:
            refused[place[TAIL]] = True
        place[TAIL] += 1


@njit(cache=True)
def _gather(
    arrivals_ms: Floats,
    now: float,
    batch_size: int,
    delay_ms: int,
    expiry_ms: float,
    place: Integers,
    refused: Booleans,
    members: Integers,  # [batch_size] of this worker, filled here
    batch_of: Integers,
    number: int,
    spent: Floats,
) -> tuple[float, int]:
    """Form one batch from `now` on; when it leaves, and how many requests it holds."""
    budget, mark, size, taken_ms = delay_ms, 0, 0, 0.0
    for slot in range(batch_size):
        if place[WAITING] == 0:  # it waits: for the first request as long as it takes
            nobody = place[TAIL] == arrivals_ms.size
            if slot > 0 and (budget <= 0 or nobody or arrivals_ms[place[TAIL]] > now + budget):
                now += max(budget, 0)
                break
            now = max(now, arrivals_ms[place[TAIL]])
            place[TAIL] += 1
            place[WAITING] += 1
        index = _take(place, refused)
        clock = math.floor(now)
        if slot > 0:
            budget -= clock - mark
        mark = clock
        if slot == 0 or arrivals_ms[index] + expiry_ms > now:  # nobody looks at the first one's expiry
            members[size], batch_of[index] = index, number
            size += 1
            taken_ms += now
            spent[QUEUE] += now - arrivals_ms[index]
        if slot > 0 and budget <= 0:
            break
    spent[BATCH] += size * now - taken_ms
    return now, size


@njit(cache=True)
def _take(place: Integers, refused: Booleans) -> int:
    """The request that has waited longest."""
    while refused[place[HEAD]]:
        place[HEAD] += 1
    place[HEAD] += 1
    place[WAITING] -= 1
    return int(place[HEAD] - 1)
