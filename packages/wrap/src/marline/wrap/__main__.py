"""`python -m marline.wrap model=NAME`: this stage alone, on the newest finished load, in a run folder of its own."""

from pathlib import Path

from marline.core import Config, Manifest, main, newest, project_root
from marline.wrap import wrap


def _wrap_newest(config: Config, out: Path) -> Manifest:
    loaded = newest(project_root() / config.artifacts, config.model, "load")
    return wrap(config.model, config.wrap, loaded, out)


main(_wrap_newest, "wrap")
