"""Puts the Python side of an archive into a folder, and runs it there outside a server.

The same files serve the archive and the proof of it: golden pairs are made by the handler that will be shipped.
"""

import importlib
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from marline.core import RequestError, StageError

HERE = Path(__file__).parent
TASKS = {
    name: HERE / f"{name.replace('-', '_')}.py"
    for name in (
        "audio-classification",
        "feature-extraction",
        "image-classification",
        "image-segmentation",
        "mask-generation",
        "object-detection",
        "text-classification",
        "text-generation",
        "video-classification",
        "voice-activity-detection",
    )
}
SHARED = ("base_handler.py", "collation.py", "eager_model.py", "emulated_device.py", "graph_file.py", "request_decoding.py")
INPUTS = ("audio_input", "image_input", "text_input")  # where a handler imports it; each reads files, one brings a library
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "sentence_bert_config.json",
    "config.json",
)


def handler_of(root: Path, model: str, task: str, named: str | None) -> Path:
    """The handler file of a model: the one named, else `models/NAME/handler.py`, else the task's.

    RequestError for a task that has none: how its requests and answers look is for the model's owner to say.
    """
    own = root / "models" / model / "handler.py"
    if named or own.is_file():
        return root / named if named else own
    if task not in TASKS:
        raise RequestError(
            f"load.task={task} has no handler of ours; those for {', '.join(sorted(TASKS))} ship. How do requests and answers "
            f"of {model} look? Say it in models/{model}/handler.py or archive.handler=FILE (nox -s new-model writes an "
            "example), or stop before with until=wrap"
        )
    return TASKS[task]


def assemble(handler: Path, checkpoint: Path, folder: Path) -> list[Path]:
    """Copy the handler, the shared base and the processor files of a checkpoint into `folder`; returns the copies.

    Python files beside a model's own handler come along, so that it can import them; its tests and other folders do not.
    """
    beside = (
        sorted(file for file in handler.parent.glob("*.py") if not file.name.startswith("test_"))
        if handler.parent != HERE
        else [handler]
    )
    shared = [HERE / name for name in SHARED]
    imported = "".join(file.read_text(encoding="utf-8") for file in beside)
    shared += [HERE / f"{name}.py" for name in INPUTS if f"from {name} import" in imported]
    files = [*beside, *shared, *(checkpoint / name for name in PROCESSOR_FILES)]
    return [Path(shutil.copy(file, folder)) for file in files if file.is_file()]


def shared_files(imported: set[str]) -> list[Path]:
    """The files of the shared base that code importing these modules needs beside it; none where it imports none of them."""
    inputs = [name for name in INPUTS if name in imported]
    if not inputs and not {Path(name).stem for name in SHARED} & imported:
        return []
    return [HERE / name for name in (*SHARED, *(f"{name}.py" for name in inputs))]


@contextmanager
def opened(folder: Path, module: str) -> Iterator[Any]:
    """An instance of the handler class defined by `module` in an assembled folder, not yet initialised.

    The folder's modules are importable inside the block and forgotten after it, as another model's have the same names.
    """
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        found = _imported(module)
        classes = [value for value in vars(found).values() if isinstance(value, type) and value.__module__ == module]
        if len(classes) != 1:
            raise ImportError(f"{module}.py must define exactly one handler class for TorchServe, it defines {len(classes)}")
        yield classes[0]()
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]


def _imported(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except Exception as error:  # anyone's code, and ours where the model's processor files are not what it knows
        raise StageError(f"the handler {module}.py cannot be used: {type(error).__name__}: {error}") from error
