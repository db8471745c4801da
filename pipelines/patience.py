"""Which failures of a stage may pass by themselves, so that trying again is no waste, and which never do.

| stage | tried again after | because |
|---|---|---|
| load | a connection that failed or took too long | the source may be reached the next time |
| deploy | a server that did not start, was not ready in time, or died | a port was taken, or the machine was too busy |
| tune | the same, a load generator that died, a machine too busy to be measured | the machine may have been disturbed |

A wrong request, answers that differ, a model that cannot be exported or loaded: these every try would find again.
"""

from collections.abc import Iterator

from prefect.task_engine import TaskRunTimeoutError

from marline.core import (
    ArchiveError,
    ExportError,
    LoadTestError,
    ParityError,
    RequestError,
    ServerError,
    StageError,
    WorkerError,
)

DELAY_S = 10.0  # for a port to be given up, or a burst of other work to end
UNREACHED = "its source was not reached"
BUSY = "a port was taken, or the machine was too busy for a server"
PASSING: dict[str, dict[type[Exception], str]] = {
    "load": {ConnectionError: UNREACHED, TimeoutError: UNREACHED},
    "deploy": {ServerError: BUSY},
    "tune": {ServerError: BUSY, LoadTestError: "the load generator failed", StageError: "the machine may have been disturbed"},
}
NEVER = (RequestError, ParityError, ExportError, ArchiveError, WorkerError, TaskRunTimeoutError)


def passing(stage: str, error: object) -> str | None:
    """Why the stage is worth another try after this error; None where it is not."""
    causes = list(_causes(error))
    if any(isinstance(cause, NEVER) for cause in causes):
        return None
    kinds = PASSING.get(stage, {})
    return next((why for kind, why in kinds.items() if any(isinstance(cause, kind) for cause in causes)), None)


def _causes(error: object) -> Iterator[BaseException]:
    """The error and what it was raised from: a library's own error often hides the connection that failed."""
    seen: set[int] = set()
    while isinstance(error, BaseException) and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
