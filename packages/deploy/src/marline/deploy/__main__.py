"""`python -m marline.deploy model=NAME`: this stage alone, on the newest finished stages before it."""

from pathlib import Path

from marline.core import Config, Manifest, main, newest, project_root
from marline.deploy import deploy


def _deploy_newest(config: Config, out: Path) -> Manifest:
    exported, archived = (newest(project_root() / config.artifacts, config.model, stage) for stage in ("export", "archive"))
    return deploy(config.model, config.deploy, exported, archived, out)


main(_deploy_newest, "deploy")
