"""Tells a webhook that a run failed, or was worse than its baseline: one small JSON by POST, without settings or secrets."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from marline.core import Config, GateRefused, RequestError

DEADLINE_S = 3.0  # less than a run has to end whose worker was killed
LONGEST = 500  # characters of a message: the rest is in the run's log
LOG = logging.getLogger(__name__)


@contextmanager
def telling(config: Config, run: Path) -> Iterator[None]:
    """Inside, whatever ends the run but a wrong request or Ctrl-C is told; it is raised on in every case."""
    try:
        yield
    except (RequestError, KeyboardInterrupt):
        raise
    except BaseException as error:  # Prefect ends a run whose worker died with an exception of its own
        regressed, said = isinstance(error, GateRefused), str(error) or type(error).__name__
        if regressed:
            said = "; ".join(line.strip() for line in said.splitlines())  # with the numbers
        tell(config, run, event="regression" if regressed else "failure", said=said, error=type(error).__name__)
        raise


def tell(config: Config, run: Path, *, event: str, said: str, **facts: str) -> None:
    """Post what happened to `notify_url`, where one is given; an address that does not answer never fails a run."""
    url = config.notify_url or os.environ.get("MARLINE_NOTIFY_URL")
    if not url:
        return
    first = said.strip().splitlines()[0][:LONGEST] if said.strip() else ""
    content = {"event": event, "model": config.model, "run": run.name, "said": first, **facts}
    try:
        httpx2.post(url, json=content, timeout=DEADLINE_S).raise_for_status()
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        LOG.warning("nobody was told of the %s of run %s: %s", event, run.name, type(error).__name__)
