"""`python -m marline.tune model=NAME`: this stage alone, on the newest finished stages before it."""

from pathlib import Path

from marline.core import Config, Manifest, accelerator_of, main, newest, project_root
from marline.tune import tune


def _tune_newest(config: Config, out: Path) -> Manifest:
    root = project_root()
    inputs = [newest(root / config.artifacts, config.model, stage) for stage in ("load", "export", "archive", "deploy")]
    return tune(config, accelerator_of(config, root), inputs, out)


main(_tune_newest, "tune")
