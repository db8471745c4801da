"""`handler:FILE.py`: a handler from scratch brings its model itself, whatever that is made with; there is no checkpoint."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from marline.core import LoadConfig, RequestError, file_sha256
from marline.load._source import INPUTS, Expects, Source, Weights, Written, only_transformers

OTHER = "other"  # Hugging Face's name for a task that has none


def from_handler(config: LoadConfig) -> Source:
    """The file as it is, not run yet; RequestError where a setting asks for what only a checkpoint can have."""
    file = Path(config.source.removeprefix("handler:"))
    if not file.is_file():
        raise RequestError(f"load.source={config.source}: there is no file {file}; the path is relative to the project's root")
    only_transformers(config)
    idle = {
        "weights": config.weights != "auto",
        "init_kwargs": bool(config.init_kwargs),
        "rename": bool(config.rename),
        "allow_pickle": config.allow_pickle,
    }
    if named := [f"load.{name}" for name, is_set in idle.items() if is_set]:
        raise RequestError(f"{', '.join(named)} has no effect: {config.source} brings its model itself; leave it out")
    task = OTHER if config.task == "auto" else config.task
    return Source(
        kind="handler",
        task=task,
        init_kwargs={},
        expects=Expects(input=INPUTS.get(task, "any")),
        write=partial(_written, config, file),
    )


def _written(config: LoadConfig, file: Path, _: Path, __: Sequence[Path]) -> Written:
    """Nothing is written; the digest makes another model of a handler that was changed."""
    return Written(Weights("file", f"brought by {config.source} itself, sha256 {file_sha256(file)[:12]}"), None)
