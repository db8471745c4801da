"""Says what is in an archive, whoever made it, and what will surprise whoever serves it."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from model_archiver.model_packaging_utils import model_handlers

from marline.archive._handler_file import class_count
from marline.archive._mar import CONFIG
from marline.archive._model_config import errors, load_config, oddities
from marline.archive._read import Contents, extract, read_mar
from marline.archive._requirements import NAME, not_installed, requirement_lines, unfit
from marline.core import RequestError, file_sha256

STOCK = (*model_handlers, "BaseHandler", "TorchScriptHandler")
NEEDS_WEIGHTS = ("image_classifier", "image_segmenter", "object_detector", "text_classifier")
SMALL_BYTES = 1 << 20
SOURCE_BYTES = 1 << 20


def describe(file: Path) -> str:
    """The manifest, the config, every file with its size in bytes and sha256, warnings, and the archive's own sha256."""
    contents = read_mar(file)
    listing = [f"{size:>15,}  {contents.sha256[name]}  {name}" for name, size in sorted(contents.sizes.items())]
    warnings = [f"warning: {one}" for one in warnings_of(file, contents)]
    manifest = json.dumps(contents.manifest, indent=2)
    return "\n".join([manifest, contents.config.rstrip("\n"), "", *listing, "", *warnings, f"sha256 {file_sha256(file)}"])


def warnings_of(file: Path, contents: Contents) -> list[str]:
    """What is legal in an archive and seldom meant, or will not work on TorchServe 0.12."""
    model = contents.manifest["model"]
    return [
        *_missing(model, contents),
        *_handler(file, model, contents),
        *_config(contents.config),
        *_requirements(file, model, contents),
        *_weights(file, model, contents),
        *_deflated(contents),
    ]


def _missing(model: Mapping[str, Any], contents: Contents) -> Iterator[str]:
    for key in ("serializedFile", "modelFile", "requirementsFile"):
        if model.get(key) and model[key] not in contents.sizes:
            yield f"the manifest's {key} {model[key]} is not in the archive"
    if not contents.config:
        yield f"there is no {CONFIG}: TorchServe's defaults hold, batches of 1 among them"


def _handler(file: Path, model: Mapping[str, Any], contents: Contents) -> Iterator[str]:
    told, _, function = str(model.get("handler", "")).partition(":")
    if contents.manifest.get("runtime") == "LSP":
        yield "runtime LSP is for TorchServe's C++ backend, which is not in the package from PyPI"
        return
    name = told if told.endswith(".py") else f"{told}.py"
    if name in contents.sizes:
        count = 1 if function or contents.sizes[name] > SOURCE_BYTES else class_count(extract(file, name))
        if count > 1:
            yield f"{name} defines {count} classes and TorchServe refuses more than one; build it with nox -s archive"
    elif told in STOCK:
        if told in NEEDS_WEIGHTS and not model.get("serializedFile"):
            yield f"TorchServe's own {told} needs weights, and there is no serializedFile"
    else:
        yield f"the manifest's handler {told} is neither in the archive nor one that TorchServe ships"


def _config(text: str) -> Iterator[str]:
    try:
        values = load_config(text.encode(), CONFIG)
    except RequestError as error:
        yield str(error)
        return
    wrong = list(errors(values))
    yield from (f"{CONFIG}: {why}" for why in wrong)
    if not wrong:
        yield from (f"{CONFIG}: {why}" for why in oddities(values))


def _requirements(file: Path, model: Mapping[str, Any], contents: Contents) -> Iterator[str]:
    named = model.get("requirementsFile")
    name = named or NAME
    if name not in contents.sizes or contents.sizes[name] > SOURCE_BYTES:
        return
    lines = requirement_lines(extract(file, name).decode(errors="replace"))
    yield from (f"{name}: {why}" for why in unfit(lines))
    if not named and lines:
        yield not_installed(lines)
    elif named:
        yield f"{name} is installed at every registration, where the server allows it (install_py_dep_per_model=true)"


def _weights(file: Path, model: Mapping[str, Any], contents: Contents) -> Iterator[str]:
    name = model.get("serializedFile")
    if name in contents.sizes and _is_pickle(file, str(name)):
        yield f"{name} is a pickle: a handler that reads it without weights_only=True runs whatever is in it"


def _is_pickle(file: Path, name: str) -> bool:
    """Whether torch would unpickle a file: an old one, or a zip with data.pkl that is no TorchScript."""
    with zipfile.ZipFile(file) as archive, archive.open(name) as stream:
        start = stream.read(2)
        if start != b"PK":
            return start[:1] == b"\x80"  # the first opcode of every pickle since protocol 2
        stream.seek(0)
        try:
            with zipfile.ZipFile(stream) as weights:
                names = [each.partition("/")[2] for each in weights.namelist()]
        except zipfile.BadZipFile:
            return False
    return "data.pkl" in names and "constants.pkl" not in names


def _deflated(contents: Contents) -> Iterator[str]:
    large = [name for name, size in contents.sizes.items() if contents.packed[name] != size and size > SMALL_BYTES]
    if large:
        total = sum(contents.sizes[name] for name in large)
        yield f"{', '.join(sorted(large))} ({total:,} bytes) deflated: registering takes longer; weights hardly get smaller"
