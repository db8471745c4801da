"""Says what an answer of TorchServe means: its numbers are ambiguous, so the type and the message count too.

| number | message, or type | kind |
|---|---|---|
| 503 | `... has no worker to serve inference request ...` | no worker, or a full queue: `GET /models/NAME` knows which |
| 503 | `Prediction failed` | the handler raised, and every request of that batch failed with it |
| 503 | `Invalid model predict output` and two more | what the handler returned is no list of one answer each |
| 500 | `Worker died.` | the process ended, or was silent for longer than responseTimeout |
| 507 | `Out of resources`, `Worker died.` | MemoryError, anything about CUDA, or a worker killed with SIGKILL |
| 400 | type `InvalidKeyException` | the token; any other 400 is the request's own fault |

gRPC says the same with other numbers; `_grpc.py` brings those to the ones above.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from marline.deploy._tokens import REFUSED

NO_CAPACITY = "has no worker to serve"
TOKEN = (REFUSED, "Token Authorization failed", "Token Authentication failed")


class Retry(StrEnum):
    """Whether the same request may be sent again."""

    ALWAYS = "always"  # it never reached a worker
    IDEMPOTENT = "idempotent"  # it may have been answered; safe where answering twice does no harm
    NEVER = "never"  # it would fail again


class Kind(StrEnum):
    """What an answer means."""

    OK = "ok"
    ACCEPTED = "accepted"
    QUEUE_FULL = "queue full"
    NO_WORKER = "no worker"
    NO_CAPACITY = "queue full or no worker"
    HANDLER_RAISED = "handler raised"
    HANDLER_NONSENSE = "handler returned nonsense"
    REQUEST_FAILED = "handler failed on this request"
    WORKER_DIED = "worker died"
    OUT_OF_RESOURCES = "out of resources"
    UNAUTHORISED = "token refused"
    BAD_REQUEST = "bad request"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not found"
    NOT_ALLOWED = "not allowed"
    CONFLICT = "conflict"
    TOO_LARGE = "too large"
    SILENCE = "no answer in time"
    UNREACHABLE = "unreachable"
    OTHER = "other"


MEANINGS: dict[Kind, tuple[Retry, str]] = {
    Kind.OK: (Retry.NEVER, "answered"),
    Kind.ACCEPTED: (Retry.NEVER, "begun, not done: ask GET /models/NAME how it stands"),
    Kind.QUEUE_FULL: (
        Retry.ALWAYS,
        "more requests wait than the model's queue holds: send fewer, or raise archive.job_queue_size",
    ),
    Kind.NO_WORKER: (Retry.ALWAYS, "the model is registered with no worker: scale it"),
    Kind.NO_CAPACITY: (Retry.ALWAYS, "the queue is full or there is no worker; the management address would tell which"),
    Kind.HANDLER_RAISED: (
        Retry.IDEMPOTENT,
        "the handler raised for a whole batch, of which this request was one: read worker.log",
    ),
    Kind.HANDLER_NONSENSE: (Retry.NEVER, "the handler did not return a list with one answer for each request"),
    Kind.REQUEST_FAILED: (Retry.NEVER, "a function of the model raised for this request: read worker.log"),
    Kind.WORKER_DIED: (Retry.IDEMPOTENT, "the worker ended or did not answer within responseTimeout, and is started again"),
    Kind.OUT_OF_RESOURCES: (Retry.IDEMPOTENT, "the worker ran out of memory or was killed: a smaller batch_size needs less"),
    Kind.UNAUTHORISED: (Retry.NEVER, "the token is wrong or has expired: ask for a new one"),
    Kind.BAD_REQUEST: (Retry.NEVER, "the request cannot be answered as it was sent"),
    Kind.FORBIDDEN: (Retry.NEVER, "TorchServe refuses, as it does to remove a default version while there are others"),
    Kind.NOT_FOUND: (Retry.NEVER, "there is no such model, version or address"),
    Kind.NOT_ALLOWED: (Retry.NEVER, "this server does not do that: models change only where enable_model_api is on"),
    Kind.CONFLICT: (Retry.NEVER, "a model of this name and version is registered already"),
    Kind.TOO_LARGE: (Retry.NEVER, "the body is larger than deploy.max_request_mb"),
    Kind.SILENCE: (Retry.IDEMPOTENT, "nothing came back before the deadline"),
    Kind.UNREACHABLE: (Retry.ALWAYS, "nobody listens at the address"),
    Kind.OTHER: (Retry.NEVER, "an answer that TorchServe's own code does not give; the handler may"),
}
BY_STATUS = {
    403: Kind.FORBIDDEN,
    404: Kind.NOT_FOUND,
    405: Kind.NOT_ALLOWED,
    409: Kind.CONFLICT,
    413: Kind.TOO_LARGE,
    507: Kind.OUT_OF_RESOURCES,
}
BY_MESSAGE = {
    "Prediction failed": Kind.HANDLER_RAISED,
    "Invalid model predict output": Kind.HANDLER_NONSENSE,
    "number of batch response mismatched": Kind.HANDLER_NONSENSE,
    "Unsupported model output data type": Kind.HANDLER_NONSENSE,
    "Worker died": Kind.WORKER_DIED,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and what it means; `status` is 0 where none came, `said` is TorchServe's own message."""

    kind: Kind
    status: int = 0
    body: bytes = b""
    said: str = ""
    tries: int = 1

    @property
    def retry(self) -> Retry:
        """Whether the same request may be sent again."""
        return MEANINGS[self.kind][0]

    @property
    def words(self) -> str:
        """What it means and what to do, for whoever sent the request."""
        number = f"{self.status}, " if self.status else ""
        said = f" (TorchServe: {' '.join(self.said.split())[:300]})" if self.said else ""
        return f"{number}{self.kind}: {MEANINGS[self.kind][1]}{said}"


def classify(status: int, body: bytes, workers: Callable[[], int | None] = lambda: None) -> Answer:
    """What an answer means; `workers` says how many the model has, None where nobody knows, and is asked only if needed."""
    if 200 <= status < 300:
        return Answer(Kind.ACCEPTED if status in {202, 206} else Kind.OK, status, body)
    told = _error(body)
    return Answer(_kind(status, told.get("type", ""), told.get("message", ""), workers), status, body, told.get("message", ""))


def _kind(status: int, type_: str, message: str, workers: Callable[[], int | None]) -> Kind:
    if NO_CAPACITY in message:
        count = workers()
        return Kind.NO_CAPACITY if count is None else Kind.QUEUE_FULL if count else Kind.NO_WORKER
    if status == 400 and any(word in type_ + message for word in TOKEN):
        return Kind.UNAUTHORISED
    if status in BY_STATUS:
        return BY_STATUS[status]
    if status < 500:
        return Kind.BAD_REQUEST
    found = next((kind for words, kind in BY_MESSAGE.items() if message.startswith(words)), Kind.OTHER)
    return Kind.REQUEST_FAILED if type_ == "HandlerError" else found


def _error(body: bytes) -> dict[str, str]:
    """TorchServe's `{"code", "type", "message"}`, or an empty one where the body is none."""
    try:
        told: Any = json.loads(body)
    except ValueError:
        return {}
    return {key: str(value) for key, value in told.items()} if isinstance(told, dict) else {}
