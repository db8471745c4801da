"""What must be in the environment before Prefect and Hugging Face are imported: a home in the project, no analytics."""

import os
from pathlib import Path

from marline.core import RequestError, project_root

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def prepare(artifacts: str) -> Path:
    """Set the environment of this process; what the user has set wins. Returns Prefect's home, beside the runs it caches.

    RequestError where a folder cannot be made.
    """
    runs = project_root() / artifacts
    told = {
        **QUIET,
        "PREFECT_HOME": str(runs / ".prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_CLI_PROMPT": "false",
    }
    for name, value in told.items():
        os.environ.setdefault(name, value)
    home = Path(os.environ["PREFECT_HOME"]).expanduser()
    for name, folder in (("artifacts", runs), ("PREFECT_HOME", home)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RequestError(f"{name}={folder}: such a folder cannot be made ({error.strerror}); name another") from None
    return home
