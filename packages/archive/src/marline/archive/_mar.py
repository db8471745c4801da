"""Writes and reads `.mar` files: a zip with TorchServe's manifest inside.

Stored, because weights do not deflate; sorted and dated 1980, so that equal contents are equal bytes.
"""

import json
import shutil
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_archiver_error import ModelArchiverError
from model_archiver.model_packaging_utils import ModelExportUtils

from marline.core import ArchiveError, MarlineError

MANIFEST = "MAR-INF/MANIFEST.json"
CONFIG = "model-config.yaml"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest date a zip can hold
CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds: TorchServe's manifest, the model config's text, and the size of every file in bytes."""

    manifest: Mapping[str, Any]
    config: str
    sizes: Mapping[str, int]


def write_mar(
    file: Path, *, model: str, version: str, handler: str, serialized: str, files: Mapping[str, Path], config: str
) -> None:
    """Write an archive of `files` (name inside -> file) and the model config's text; whole or not at all."""
    told = ModelArchiverConfig(
        model_name=model,
        handler=handler,
        runtime="python3",
        serialized_file=serialized,
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
    partial = file.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted({*files, *texts}):
            if name in texts:
                archive.writestr(_entry(name), texts[name])
            else:
                with files[name].open("rb") as source:
                    _copy(source, archive, name, files[name].stat().st_size)
    partial.replace(file)


def with_config(source: Path, config: str, file: Path) -> None:
    """Write `file` as a copy of the archive `source` with another model config; whole or not at all."""
    partial = file.with_suffix(".partial")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as new:
        for info in old.infolist():
            if info.filename == CONFIG:
                new.writestr(_entry(CONFIG), config)
            else:
                with old.open(info) as stream:
                    _copy(stream, new, info.filename, info.file_size)
    partial.replace(file)


def read_mar(file: Path) -> Contents:
    """Look into any archive without unpacking it; ArchiveError where it is damaged or would write outside its folder."""
    try:
        return _contents(file)
    except MarlineError:
        raise
    except Exception as error:  # zipfile, zlib and json raise errors of many kinds on damaged bytes
        raise ArchiveError(f"{file} is not a model archive: {error}") from None


def extract(file: Path, name: str) -> bytes:
    """One file of an archive."""
    with zipfile.ZipFile(file) as archive:
        return archive.read(name)


def _contents(file: Path) -> Contents:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            _refuse_hostile(info, file)
        damaged = archive.testzip()
        if damaged is not None:
            raise ArchiveError(f"{file}: {damaged} is damaged; build it again with nox -s archive -- model=NAME fresh=archive")
        names = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
        manifest = json.loads(archive.read(MANIFEST))
        name = manifest["model"].get("configFile")
        return Contents(manifest, archive.read(name).decode() if name else "", names)


def _refuse_hostile(info: zipfile.ZipInfo, file: Path) -> None:
    path = PurePosixPath(info.filename)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename or kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise ArchiveError(
            f"{file}: the entry {info.filename!r} leaves the archive's folder or is no plain file; do not serve it"
        )


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
