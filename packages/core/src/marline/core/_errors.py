"""What this project raises.

MarlineError               everything a user sees without a traceback; exit code 1
  RequestError             the request cannot be carried out as written; exit code 2
  StageError               a stage did its work and failed
    ParityError            two answers that must be equal are not
    ExportError            the model can be neither scripted nor traced
    ArchiveError           an archive cannot be built or is not what it says
    ServerError            TorchServe did not start, refused, or died
      WorkerError          ... its worker could not load the model; carries the worker's own traceback
      NotReady             ... no worker was ready in the time it was given
    LoadTestError          locust did not run, or left no samples
    GateRefused            the run is finished, and worse than `report.fail_if` allows
"""


class MarlineError(Exception):
    """Everything we report to the user without a traceback."""

    exit_code = 1


class RequestError(MarlineError):
    """A setting, model name or file named by the user is wrong."""

    exit_code = 2


class StageError(MarlineError):
    """A stage failed."""


class ParityError(StageError):
    """Two answers that must be equal are not."""


class ExportError(StageError):
    """The model can be neither scripted nor traced."""


class ArchiveError(StageError):
    """An archive cannot be built or is not what it says."""


class ServerError(StageError):
    """TorchServe did not start, refused, or died."""


class WorkerError(ServerError):
    """A worker could not load the model; the message carries its own traceback."""


class NotReady(ServerError):
    """No worker was ready in the time it was given."""


class LoadTestError(StageError):
    """Locust did not run, or left no samples."""


class GateRefused(StageError):
    """A finished run is worse than `report.fail_if` allows; the message has the numbers."""
