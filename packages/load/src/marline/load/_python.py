"""`python:FILE.py:FUNCTION`: a function of the user's own that returns a module.

The file may say more: LABELS maps class indices to names or lists them, PROCESSOR is the preprocessor_config.json of its
images, and INPUT_SHAPE is the shape of one tensor where it takes no images.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType

from marline.core import LoadConfig, RequestError, StageError, import_file
from marline.load._modules import Module, called, module_source
from marline.load._source import INPUTS, Expects, Source, told_task


def from_python(config: LoadConfig) -> Source:
    """The module that FUNCTION(**load.init_kwargs) builds."""
    name = config.source.removeprefix("python:")
    file, _, function = name.rpartition(":")
    if not Path(file).is_file():
        raise RequestError(f"load.source=python:{name}: there is no file {file}; the path is relative to the project's root")
    code = _imported(Path(file))
    init = getattr(code, function, None)
    if not callable(init):
        raise RequestError(f"load.source=python:{name}: {file} has no function {function!r}")
    told = getattr(code, "LABELS", {})
    labels = {str(index): str(label) for index, label in (told.items() if isinstance(told, Mapping) else enumerate(told))}
    task = "image-classification" if labels and config.task == "auto" else told_task(config)
    shape = getattr(code, "INPUT_SHAPE", None)
    expects = Expects(input=INPUTS.get(task, "tensor")) if shape is None else Expects(input="tensor", shape=tuple(shape))
    return module_source(
        config,
        Module(
            build=partial(called, init, config.init_kwargs),
            task=task,
            expects=expects,
            init_kwargs=config.init_kwargs,
            processor=getattr(code, "PROCESSOR", None),
            labels=labels,
            code=Path(file),
        ),
    )


def _imported(file: Path) -> ModuleType:
    try:
        return import_file(file)
    except Exception as error:  # the user's own code
        raise StageError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
