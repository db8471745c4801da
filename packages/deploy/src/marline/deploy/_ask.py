"""Asks a model and says what the answer means: hard deadline, and tries again only what may be tried again."""

import time
from typing import Protocol

import httpx2

from marline.core import ServerError
from marline.deploy._answers import Answer, Kind, Retry, classify
from marline.deploy._client import DEADLINE_S, Reply, Status
from marline.deploy._waiting import attempts, within

TRIES = 4
LOOK_S = 2.0  # for the look at the workers that an ambiguous answer needs


class Speaks(Protocol):
    """What `ask` needs of a client, whatever protocol it speaks: `Client` and `GrpcClient` have it."""

    def predict(
        self, model: str, body: bytes, content_type: str, deadline_s: float = DEADLINE_S, *, version: str | None = None
    ) -> Reply:
        """Send one request; ServerError where nothing comes back."""

    def describe(self, model: str, version: str | None = None) -> Status | None:
        """How a version stands; None where there is no such one, ServerError where the server does not tell."""


def ask(
    client: Speaks,
    model: str,
    body: bytes,
    content_type: str,
    *,
    version: str | None = None,
    idempotent: bool = False,
    deadline_s: float = DEADLINE_S,
    tries: int = TRIES,
) -> Answer:
    """One answer within `deadline_s`, over all tries and the pauses between them; raises nothing for what a server does.

    What never reached a worker is sent again. What may have been answered is only where `idempotent` says that answering
    it twice does no harm. No answer from 400 to 499 is ever asked for again.
    """
    answer = Answer(Kind.SILENCE)
    for turn, left_s in enumerate(attempts(tries, deadline_s), start=1):
        answer = _once(client, model, body, content_type, version, left_s, turn)
        if answer.retry is not Retry.ALWAYS and not (idempotent and answer.retry is Retry.IDEMPOTENT):
            break
    return answer


def _once(
    client: Speaks, model: str, body: bytes, content_type: str, version: str | None, deadline_s: float, turn: int
) -> Answer:
    end = time.monotonic() + deadline_s
    try:
        reply = client.predict(model, body, content_type, deadline_s, version=version)
    except ServerError as error:
        reached = not isinstance(error.__cause__, ConnectionError | httpx2.ConnectError)
        return Answer(Kind.SILENCE if reached else Kind.UNREACHABLE, said=str(error), tries=turn)
    found = classify(reply.status, reply.body, lambda: _workers(client, model, version, end - time.monotonic()))
    return Answer(found.kind, found.status, found.body, found.said, turn)


def _workers(client: Speaks, model: str, version: str | None, left_s: float) -> int | None:
    try:
        status = within(min(LOOK_S, max(left_s, 0.0)), lambda: client.describe(model, version))
    except (ServerError, TimeoutError):  # no token for management, or nobody there: the answer is ambiguous then, and says so
        return None
    return None if status is None else len(status.workers)
