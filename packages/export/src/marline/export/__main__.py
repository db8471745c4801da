"""`python -m marline.export model=NAME`: this stage alone, on the newest finished stages before it."""

from pathlib import Path

from marline.core import Config, Manifest, main, newest, project_root
from marline.export import export
from marline.handler import handler_of


def _export_newest(config: Config, out: Path) -> Manifest:
    root = project_root()
    loaded, wrapped = (newest(root / config.artifacts, config.model, stage) for stage in ("load", "wrap"))
    handler = handler_of(root, config.model, loaded.facts["task"], config.handler)
    return export(config.model, config.export, loaded, wrapped, handler, out)


main(_export_newest, "export")
