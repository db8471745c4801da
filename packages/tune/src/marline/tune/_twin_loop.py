"""TorchServe's batching loop, step by step, on numbers alone: `Model.pollBatch` and `WorkerThread` of TorchServe 0.12.

One first-in-first-out queue per model. A free worker takes the model's lock, waits for a first request, then gathers: it waits
for the next one as long as the delay is not used up, on a clock of whole milliseconds that is read after each one. The next free
worker gets the lock then. Between two events nothing changes, so the events of W workers in the order of their time are all
there is: a worker that is free, and a worker whose batch asks for the accelerator. What arrives is known beforehand and only the
holder of the lock takes from the queue, which is why a whole batch can be formed in one event.

Compiled; times are float64 milliseconds since an arbitrary start.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
QUEUED, GATHERED, OVERHEAD, PRE, DEVICE, INFERENCE, POST = range(7)
STAGES = ("queue", "batch", "overhead", "pre", "device", "inference", "post")  # where the time of a request goes, in this order


@njit(cache=True)
def serve(
    arrivals_ms: Floats,  # [n] ascending
    table_ms: Floats,  # [sizes, K, 3], see Service.table_ms
    draws: NDArray[np.int64],  # [n] the row of the table that the k-th batch gets
    batch_size: int,
    delay_ms: int,
    workers: int,
    shared: bool,
    batch_ms: float,
    request_ms: float,
    queue: int,
    expiry_ms: float,
) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Latencies [n] (inf: refused or expired), the number of the batch of each request [n] (-1: none), and ms by stage [7].

    The stages add up what all requests of batches spent in each, whether their client still waited or not.
    """
    count = arrivals_ms.size
    latencies, batch_of, spent = np.full(count, np.inf), np.full(count, -1), np.zeros(7)
    refused = np.zeros(count, np.bool_)
    at = np.zeros(workers)  # when something happens to each worker next: it is free, or its batch asks for the accelerator
    since = np.arange(workers)  # the order in which that was settled, for what happens at the same instant
    asks = np.zeros(workers, np.bool_)
    members, sizes, rows = np.zeros((workers, batch_size), np.int64), np.zeros(workers, np.int64), np.zeros(workers, np.int64)
    head, tail, waiting = 0, 0, 0  # the next to take, the next to arrive, and how many between them are not refused
    unlocked, device_free, batches, events = 0.0, 0.0, 0, workers
    while True:
        worker = 0
        for other in range(1, workers):
            if at[other] < at[worker] or (at[other] == at[worker] and since[other] < since[worker]):
                worker = other
        if at[worker] == np.inf:
            return latencies, batch_of, spent
        events += 1
        since[worker] = events
        if asks[worker]:
            size, row = sizes[worker], rows[worker]
            begins = max(at[worker], device_free) if shared else at[worker]
            inferred = begins + table_ms[size, row, 1]
            device_free = inferred
            ends = inferred + table_ms[size, row, 2]
            spent[DEVICE] += size * (begins - at[worker])
            for place in range(size):
                index = members[worker, place]
                latency = ends - arrivals_ms[index]
                latencies[index] = latency if latency < expiry_ms else np.inf  # nobody is answered after that either
            at[worker], asks[worker] = ends, False
            continue

        # The worker gets the lock: what came until now has found a place in the queue, or none.
        now = max(at[worker], unlocked)
        while tail < count and arrivals_ms[tail] <= now:
            if waiting < queue:
                waiting += 1
            else:
                refused[tail] = True
            tail += 1
        if waiting == 0 and tail == count:
            at[worker] = np.inf
            continue
        budget, mark, size, taken_sum = delay_ms, 0, 0, 0.0
        for slot in range(batch_size):
            if waiting == 0:  # it waits, for the first as long as it takes
                if slot > 0 and (budget <= 0 or tail == count or arrivals_ms[tail] > now + budget):
                    now += max(budget, 0)
                    break
                now = max(now, arrivals_ms[tail])
                tail += 1
                waiting += 1
            while refused[head]:
                head += 1
            index = head
            head += 1
            waiting -= 1
            clock = math.floor(now)
            if slot > 0:
                budget -= clock - mark
            mark = clock
            if slot == 0 or arrivals_ms[index] + expiry_ms > now:  # the first one's expiry is not looked at
                members[worker, size] = index
                batch_of[index] = batches
                size += 1
                taken_sum += now
                spent[QUEUED] += now - arrivals_ms[index]
            if slot > 0 and budget <= 0:
                break
        unlocked = now

        row = draws[batches]
        batches += 1
        overhead = batch_ms + request_ms * size
        spent[GATHERED] += size * now - taken_sum
        spent[OVERHEAD] += size * overhead
        spent[PRE] += size * table_ms[size, row, 0]
        spent[INFERENCE] += size * table_ms[size, row, 1]
        spent[POST] += size * table_ms[size, row, 2]
        sizes[worker], rows[worker] = size, row
        at[worker], asks[worker] = now + overhead + table_ms[size, row, 0], True
