"""Builds an archive from files of the user's, outside a run, by model-servers' parameters and torch-model-archiver's."""

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from model_archiver.model_packaging_utils import model_handlers

from marline.archive._files import add, existing, extras
from marline.archive._handler_file import ENTRY, entry_of, imported, parsed, refuse_shadow
from marline.archive._inspect import warnings_of
from marline.archive._mar import write_mar
from marline.archive._model_config import parse_config
from marline.archive._read import read_mar
from marline.archive._requirements import NAME, read_requirements
from marline.archive._serving import as_text, completed
from marline.core import RequestError, file_sha256
from marline.handler import shared_files

RUNTIMES = ("python", "python3", "LSP")
STOCK_LSP = ("BaseHandler", "TorchScriptHandler")
NAMED = r"[A-Za-z0-9][\w.-]*"


@dataclass(frozen=True, slots=True)
class Built:
    """An archive, its sha256 in hex, and what is odd about it."""

    file: Path
    sha256: str
    warnings: tuple[str, ...]


def build(
    model_name: str,
    *,
    version: str = "1.0",
    model_file: str | Path | None = None,
    handler: str | Path | None = None,
    config_file: str | Path | None = None,
    requirements_file: str | Path | None = None,
    checkpoint_file: str | Path | None = None,
    serialized_file: str | Path | None = None,
    architecture_file: str | Path | None = None,
    extra_files: Sequence[str | Path] = (),
    runtime: str = "python3",
    export_path: str | Path = Path(),
    requirements: Literal["off", "install"] = "off",
) -> Built:
    """Write `export_path/model_name.mar`, in place of one that is there; equal inputs give equal bytes.

    `model_file` is the file with the model's functions and its handler; `handler` says the same as FILE[:FUNCTION or CLASS],
    or names a handler that TorchServe ships. `checkpoint_file` and `serialized_file` are one thing; without it the init
    function brings its weights. `architecture_file` is torch-model-archiver's --model-file. RequestError where what is asked
    for cannot be, ArchiveError where an extra archive is hostile or the disk is full.
    """
    _refuse(model_name, version, runtime, requirements)
    told = _one_of("model_file", model_file, "handler", handler)
    if told is None:
        raise RequestError("no handler is named; write model_file=FILE, handler=FILE[:ENTRY] or handler=image_classifier")
    weights = _one_of("checkpoint_file", checkpoint_file, "serialized_file", serialized_file)
    values = parse_config(existing(config_file, "config_file").read_bytes(), str(config_file)) if config_file else {}
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="marline-") as work:
        entry = _handler(str(told), runtime, files, Path(work))
        for word, file in (("checkpoint_file", weights), ("architecture_file", architecture_file)):
            if file is not None:
                add(files, {Path(file).name: existing(file, word)})
        add(files, extras(extra_files, Path(work)))
        install = carry_requirements(requirements_file, requirements, files, Path(work))
        warnings = list(_share(files, runtime, values))
        mar = _folder(export_path) / f"{model_name}.mar"
        write_mar(
            mar,
            model=model_name,
            version=version,
            handler=entry,
            serialized=_name(weights),
            architecture=_name(architecture_file),
            requirements=install,
            runtime=runtime,
            files=files,
            config=as_text(completed(values)),
        )
    return Built(mar, file_sha256(mar), (*warnings, *warnings_of(mar, read_mar(mar))))


def serve_by(file: Path, function: str | None, files: dict[str, Path], work: Path) -> str:
    """Put a Python handler among the files, and where it needs one an entry module; returns the manifest's handler."""
    entry = entry_of(file, function)
    add(files, {file.name: file})
    if entry.generated is not None:
        made = work / ENTRY
        made.write_text(entry.generated, encoding="utf-8")
        add(files, {ENTRY: made})
    return entry.handler


def carry_requirements(told: str | Path | None, mode: str, files: dict[str, Path], work: Path) -> str | None:
    """Put a requirements file among the files; returns its name inside where TorchServe is to install it."""
    if told is None:
        if mode == "install":
            raise RequestError("requirements=install without a requirements_file; name one or write requirements=off")
        return None
    file = existing(told, "requirements_file")
    install = mode == "install"
    lines = read_requirements(file, install=install)
    if install:  # what was checked is what is installed: pip reads encodings and comments in its own way
        file = work / NAME
        file.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    add(files, {NAME: file})
    return NAME if install and lines else None


def _refuse(model_name: str, version: str, runtime: str, requirements: str) -> None:
    if not re.fullmatch(NAMED, model_name, re.ASCII) or not re.fullmatch(NAMED, version, re.ASCII):
        raise RequestError(f"model_name={model_name} version={version}: both are letters, digits and . _ -, for an address")
    if runtime not in RUNTIMES:
        raise RequestError(f"runtime={runtime} is not known; torch-model-archiver has {', '.join(RUNTIMES)}")
    if requirements not in {"off", "install"}:
        raise RequestError(f"requirements={requirements} is not known; write off or install")


def _one_of(one: str, first: str | Path | None, other: str, second: str | Path | None) -> str | Path | None:
    if first is not None and second is not None:
        raise RequestError(f"{one}={first} and {other}={second} are two names of one thing; write one of them")
    return second if first is None else first


def _folder(told: str | Path) -> Path:
    try:
        Path(told).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"export_path={told} is no folder and cannot be made one: {error}") from None
    return Path(told)


def _name(file: str | Path | None) -> str | None:
    return Path(file).name if file is not None else None


def _handler(told: str, runtime: str, files: dict[str, Path], work: Path) -> str:
    """Put the handler among the files; returns how the manifest names it. `told` is FILE, FILE:ENTRY or a stock name."""
    place, _, function = told.rpartition(":") if ":" in told and not Path(told).is_file() else (told, "", "")
    if runtime == "LSP":
        if place not in STOCK_LSP:
            library = existing(place if place.endswith(".so") else f"{place}.so", "handler")
            add(files, {library.name: library})
        return Path(told).name
    if place in model_handlers and not function:
        return place
    file = Path(place if place.endswith(".py") else f"{place}.py")
    if not file.is_file():
        near = get_close_matches(place, model_handlers, n=1)
        stock = f"did you mean {near[0]}?" if near else f"TorchServe's own are {', '.join(model_handlers)}"
        raise RequestError(f"handler={told}: there is no file {file}; {stock}")
    refuse_shadow(file)
    return serve_by(file, function or None, files, work)


def _share(files: dict[str, Path], runtime: str, values: Mapping[str, Any]) -> Iterator[str]:
    """Put the shared base handler among the files where one of them imports it; yields what is odd about them.

    Its `system.extraFiles` has been unpacked then, and is left out.
    """
    packed = (values.get("system") or {}).get("extraFiles")
    if packed is not None and Path(packed).name not in files:
        raise RequestError(f"system.extraFiles: {packed} is not among extra_files; name it there, or leave the key out")
    if runtime == "LSP":
        return
    needed: set[str] = set()
    own = {name.removesuffix(".py") for name in files}
    for name, file in files.items():
        if name.endswith(".py"):
            try:
                needed |= imported(parsed(file)) - own
            except RequestError as error:
                yield str(error)
            if "/" not in name and file.stem in sys.stdlib_module_names:
                yield f"{name} takes the place of Python's own module {file.stem} for all that imports it"
    shared = shared_files(needed)
    try:
        add(files, {file.name: file for file in shared})
    except RequestError as error:
        raise RequestError(f"{error}: the shared base handler, which is imported here, brings files of its own") from None
    if shared and packed is not None:
        del files[Path(packed).name]
