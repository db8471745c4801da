"""Waits until nothing that was sent to a version of a model is in its queue or in the hands of its workers.

TorchServe says how many requests wait, never how many are being answered, and removing a version loses both. Its queue is
first in, first out, and a worker has one batch at a time. So once a request of ours, sent behind all others, was answered by
each worker, all that came before it has been answered. A handler of ours says which worker it is; of others it is only known
that, once ours was answered, everything before it was in a worker's hands: no batch is there for longer than responseTimeout.
"""

import time

from marline.core import ServerError
from marline.deploy._client import Client

SETTLE_S = 1.0  # a request finds its version and joins its queue in microseconds; a pause of Java may fall between
QUEUE_S = 300.0  # for what waits before ours


def drain(client: Client, model: str, version: str, deadline_s: float = QUEUE_S) -> None:
    """Return when a version, to which no request goes by default any more, has answered everything.

    ServerError, after `deadline_s` and what the slowest batch may take, where clients go on naming the version, or a worker
    hangs: nothing is lost by then, as nothing was removed.
    """
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        named = _named(client, model, version)
        time.sleep(SETTLE_S)
        status = client.describe(model, version)
        if status is None or not status.workers:
            return
        _behind_all(client, model, version, deadline_s + status.response_timeout_s)
        if named == _named(client, model, version):
            return
    raise ServerError(f"{model} {version} was still asked for by its name after {deadline_s:.0f} s")


def _named(client: Client, model: str, version: str) -> int:
    """How often clients named the version; always 0 of a server whose metrics address is not known."""
    return client.named(model, version) if client.metrics_url else 0


def _behind_all(client: Client, model: str, version: str, deadline_s: float) -> None:
    """Be answered once by every worker."""
    deadline = time.monotonic() + deadline_s
    answered: set[int] = set()
    while time.monotonic() < deadline:
        worker = client.last_in_line(model, version, max(1.0, deadline - time.monotonic()))
        status = client.describe(model, version)
        if status is None:
            return
        if worker is None:
            time.sleep(status.response_timeout_s + SETTLE_S)
            return
        answered.add(worker)
        if {pid for pid, state in status.workers if state == "READY"} <= answered:
            return  # one that died meanwhile has failed its batch: there is nothing to wait for
    raise ServerError(f"a worker of {model} {version} has been at one batch for {deadline_s:.0f} s")
