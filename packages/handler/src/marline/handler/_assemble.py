"""Puts the Python side of an archive into a folder, and runs it there outside a server.

The same files serve the archive and the proof of it: golden pairs are made by the handler that will be shipped.
"""

import importlib
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from marline.core import RequestError, StageError

HERE = Path(__file__).parent
EAGER = "eager.json"  # what `eager_model` reads, which cannot be asked for its name without torch
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
SHARED = tuple(
    f"{name}.py"
    for name in (
        *("base_handler", "batch_facts", "body_formats", "collation", "device_use", "eager_model", "emulated_device"),
        *("explanation", "graph_file", "method_call", "model_loading", "one_batch", "open_inference", "request_decoding"),
    )
)
INPUTS = ("audio_input", "image_input", "text_input")  # where a handler imports it; each reads files, one brings a library
IMPORT = re.compile(r"^\s*(?:from|import) (\w+)", re.MULTILINE)
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


def beside(handler: Path) -> list[Path]:
    """A handler and what comes along with it: Python files beside it, tests aside, and the files beside it that those name.

    Only names in quotes count: a folder may hold much that is nobody's business where the archive goes.
    """
    if handler.parent == HERE:
        return [handler]
    code = sorted(file for file in handler.parent.glob("*.py") if not file.name.startswith("test_"))
    said = _text(code)
    others = sorted(file for file in handler.parent.iterdir() if file.is_file() and file.suffix != ".py")
    return [*code, *(file for file in others if f'"{file.name}"' in said or f"'{file.name}'" in said)]


def assemble(handler: Path, checkpoint: Path, folder: Path) -> list[Path]:
    """Copy the handler, the shared base and the processor files of a checkpoint into `folder`; returns the copies.

    What a handler needs beside it comes along; the shared base does not where the handler is one from scratch.
    """
    own = beside(handler)
    said = _text(file for file in own if file.suffix == ".py")
    files = [*own, *shared_files(set(IMPORT.findall(said))), *(checkpoint / name for name in PROCESSOR_FILES)]
    return [Path(shutil.copy(file, folder)) for file in files if file.is_file()]


def _text(files: Iterable[Path]) -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def shared_files(imported: set[str]) -> list[Path]:
    """The files of the shared base that code importing these modules needs beside it; none where it imports none of them."""
    inputs = [name for name in INPUTS if name in imported]
    if not inputs and not {Path(name).stem for name in SHARED} & imported:
        return []
    return [HERE / name for name in (*SHARED, *(f"{name}.py" for name in inputs))]


@contextmanager
def opened(folder: Path, module: str) -> Iterator[Any]:
    """An instance of the handler class defined by `module` in an assembled folder, not yet initialised."""
    with imported(folder, module) as found:
        classes = [value for value in vars(found).values() if isinstance(value, type) and value.__module__ == module]
        if len(classes) != 1:
            raise ImportError(f"{module}.py must define exactly one handler class for TorchServe, it defines {len(classes)}")
        yield classes[0]()


@contextmanager
def imported(folder: Path, module: str) -> Iterator[ModuleType]:
    """A module of an assembled folder.

    The folder's modules are importable inside the block and forgotten after it, as another model's have the same names.
    """
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield _imported(module)
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
