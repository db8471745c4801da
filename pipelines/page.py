"""What Prefect's page shows of a run: how far it is, and with the report its summary, its picture and where it is.

Keys are the model's, so that the page shows its runs one after another. What Prefect's server does not take fails no run.
"""

import base64
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from marline.core import STAGES, Config, Manifest
from pipelines.ending import interruptible

PICTURE = "throughput_latency.svg"
LOG = logging.getLogger(__name__)


@dataclass
class Page:
    """The artifacts of one run; begin it inside a flow."""

    model: str
    until: str
    progress: UUID | None = None

    def key(self, name: str) -> str:
        """Prefect takes lower case, digits and dashes."""
        told = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in self.model.lower())
        return f"{told}-{name}"

    def done(self, manifest: Manifest) -> None:
        """A stage has been finished, here or in an earlier run."""
        share = (STAGES.index(manifest.stage) + 1) / (STAGES.index(self.until) + 1)
        with harmless():
            if self.progress is not None:
                update_progress_artifact(self.progress, progress=100 * share, description=f"{manifest.stage} is done")
        if manifest.stage == "report":
            with harmless():
                self._report(manifest)

    def _report(self, manifest: Manifest) -> None:
        from marline.report import summary  # noqa: PLC0415 - it is there by now, and takes a second to import

        found = json.loads(manifest.path("report.json").read_text())
        rows = [{"": name, "found": value} for name, value in summary(found)]
        what = f"{self.model}, run {manifest.run}"
        create_table_artifact(rows, key=self.key("summary"), description=f"{what}: {found['verdict']['sentence']}")
        place = manifest.path("report.html").as_uri()
        create_link_artifact(
            place, link_text=f"report of {what}", key=self.key("report"), description=f"on its machine: {place}"
        )
        picture = base64.b64encode(manifest.path(PICTURE).read_bytes()).decode()
        create_image_artifact(
            f"data:image/svg+xml;base64,{picture}", key=self.key("picture"), description=f"{what}: latency against rate"
        )


def page(config: Config) -> Page:
    """Begin the page of a run that was just begun."""
    begun = Page(config.model, config.until)
    with harmless():
        made = create_progress_artifact(0.0, key=begun.key("progress"), description="begun")
        begun.progress = made if isinstance(made, UUID) else None  # in an event loop it would be a coroutine
    return begun


@contextmanager
def harmless() -> Iterator[None]:
    """What cannot be shown is said in the log: a page is no reason to lose a measurement."""
    try:
        with interruptible():  # which must not be taken for one of Prefect's failures
            yield
    except Exception:  # Prefect's client, its server and its database each have their own error trees
        LOG.warning("Prefect's page lacks something of this run", exc_info=True)
