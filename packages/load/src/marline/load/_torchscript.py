"""`torchscript:FILE`: a model that is TorchScript already; its bytes pass through unchanged."""

import shutil
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from marline.core import LoadConfig, RequestError, StageError, located, write_json
from marline.load._foreign import refuse_infinite
from marline.load._source import INPUTS, Expects, Source, Weights, Written, only_transformers, told_task


def from_torchscript(config: LoadConfig) -> Source:
    """The file as it is; RequestError where a setting asks for anything else."""
    file = located(config.source.removeprefix("torchscript:"))
    if not file.is_file():
        raise RequestError(f"load.source={config.source}: there is no file {file}; the path is relative to the project's root")
    only_transformers(config)
    if config.weights not in {"auto", "published"} or config.rename or config.init_kwargs:
        raise RequestError(f"load.source={config.source} has its weights inside; leave out weights, rename and init_kwargs")
    task = told_task(config)
    return Source(
        kind="torchscript",
        task=task,
        init_kwargs={},
        expects=Expects(input=INPUTS.get(task, "tensor")),
        write=partial(_write, config, file, task),
    )


def _write(config: LoadConfig, file: Path, task: str, checkpoint: Path, _: Sequence[Path]) -> Written:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and the mission
        try:
            # Only here does load know TorchScript: what cannot be opened must not travel on to the server.
            module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]  # noqa: TID251
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise StageError(f"{file} cannot be read as TorchScript: {reason}") from None
    refuse_infinite(module.state_dict(), config.source)
    checkpoint.mkdir()
    shutil.copyfile(file, checkpoint / "model.pt")
    write_json(checkpoint / "config.json", {"source": config.source, "task": task})
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return Written(Weights("published", f"inside {config.source}"), parameters)
