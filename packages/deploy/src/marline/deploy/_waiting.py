"""Waits that end: a deadline over the whole of a call, and pauses between tries that grow and stay short."""

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

FIRST_S, LONGEST_S = 0.1, 2.0


def within(deadline_s: float, call: Callable[[], T]) -> T:
    """What `call` returns or raises; TimeoutError where it takes longer.

    An HTTP client's own timeouts are for one step each: a server that sends a byte now and then would never run into one.
    The call goes on in its thread, which nobody waits for, until a step of its own times out.
    """
    done: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:  # raised again below, in the thread that asked
            done.put((None, error))

    threading.Thread(target=run, name="marline-call", daemon=True).start()
    try:
        found, error = done.get(timeout=deadline_s)
    except queue.Empty:
        raise TimeoutError(f"no answer within {deadline_s:g} s") from None
    if error is not None:
        raise error
    return found  # type: ignore[return-value]  # without an error it is what the call returned


def attempts(tries: int, deadline_s: float) -> Iterator[float]:
    """Yield the seconds left before each try, after a pause that doubles from 0.1 s to 2 s; ends at the deadline."""
    end = time.monotonic() + deadline_s
    for turn in range(tries):
        if turn:
            pause = min(LONGEST_S, FIRST_S * 2 ** (turn - 1)) * random.uniform(0.5, 1)
            if time.monotonic() + pause >= end:
                return
            time.sleep(pause)
        yield end - time.monotonic()
