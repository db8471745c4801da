"""Writes `.mar` files: a zip with TorchServe's manifest inside.

Stored, because weights do not deflate; sorted and dated 1980, so that equal contents are equal bytes.
"""

import json
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.model_packaging_utils import ModelExportUtils

from marline.archive._entries import TOTAL_BYTES, Gate
from marline.core import ArchiveError, RequestError

MANIFEST = "MAR-INF/MANIFEST.json"
CONFIG = "model-config.yaml"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date a zip can hold
CHUNK = 1 << 20


def write_mar(
    file: Path,
    *,
    model: str,
    version: str,
    handler: str,
    serialized: str | None,
    files: Mapping[str, Path],
    config: str,
    architecture: str | None = None,
    requirements: str | None = None,
    runtime: str = "python3",
) -> None:
    """Write an archive of `files` (name inside -> file) and the model config's text; whole or not at all.

    `architecture` and `requirements` are names inside: torch-model-archiver's model file, and what TorchServe is to install.
    """
    if model.startswith("token"):
        raise RequestError(f"{model} cannot be managed: TorchServe takes /models/token... for its address of keys; rename it")
    told = ModelArchiverConfig(
        model_name=model,
        handler=handler,
        runtime=runtime,
        serialized_file=serialized,
        model_file=architecture,
        requirements_file=requirements,
        config_file=CONFIG,
        version=version,
        export_path=str(file.parent),
    )
    try:
        ModelExportUtils.validate_inputs(model, str(file.parent))
        manifest = json.loads(ModelExportUtils.generate_manifest_json(told))
    except ModelArchiverError as error:
        raise ArchiveError(f"torch-model-archiver refuses {model!r}: {error}") from None
    manifest["createdOn"] = "01/01/1980 00:00:00"  # the archiver writes the time of day, which would change the bytes
    texts = {CONFIG: config, MANIFEST: json.dumps(manifest, indent=2)}
    gate = Gate(file, "rename or leave it out", TOTAL_BYTES)
    for name in (*texts, *files):
        gate.admit(name, 0, folder=False, plain=True)
    with _whole(file) as archive:
        for name in sorted({*files, *texts}):
            if name in texts:
                archive.writestr(_entry(name), texts[name])
            else:
                with files[name].open("rb") as source:
                    _copy(source, archive, name, files[name].stat().st_size)


def with_config(source: Path, config: str, file: Path) -> None:
    """Write `file` as a copy of the archive `source` with another model config; whole or not at all."""
    _with(source, {CONFIG: config}, file)


def with_version(source: Path, version: str, file: Path) -> None:
    """Write `file` as a copy of the archive `source` that calls itself another version; whole or not at all."""
    with zipfile.ZipFile(source) as old:
        manifest = json.loads(old.read(MANIFEST))
    manifest["model"]["modelVersion"] = version
    _with(source, {MANIFEST: json.dumps(manifest, indent=2)}, file)


def _with(source: Path, texts: Mapping[str, str], file: Path) -> None:
    with zipfile.ZipFile(source) as old, _whole(file) as new:
        for info in old.infolist():
            if info.filename in texts:
                new.writestr(_entry(info.filename), texts[info.filename])
            else:
                with old.open(info) as stream:
                    _copy(stream, new, info.filename, info.file_size)


@contextmanager
def _whole(file: Path) -> Iterator[zipfile.ZipFile]:
    """A zip that takes the place of `file` when all is in it; ArchiveError, and nothing left behind, where the disk ends."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            yield archive
        partial.replace(file)
    except OSError as error:
        raise ArchiveError(f"{file} cannot be written: {error}; make room or name another folder") from None
    finally:
        partial.unlink(missing_ok=True)


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def _copy(source: Any, archive: zipfile.ZipFile, name: str, size: int) -> None:
    info = _entry(name)
    info.file_size = size
    target: BinaryIO
    with archive.open(info, "w") as target:  # type: ignore[assignment]  # typeshed says IO[bytes]
        shutil.copyfileobj(source, target, CHUNK)
