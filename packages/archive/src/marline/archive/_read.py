"""Looks into any `.mar`, ours or torch-model-archiver's, without unpacking it."""

import hashlib
import json
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marline.archive._entries import Gate, bound_of
from marline.archive._mar import CHUNK, MANIFEST
from marline.core import ArchiveError, MarlineError

TEXT_BYTES = 1 << 20  # of a manifest or a config


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds: TorchServe's manifest, the model config's text, and of every file its size in bytes.

    `packed` are the bytes it takes in the archive, `sha256` its digest in hex.
    """

    manifest: Mapping[str, Any]
    config: str
    sizes: Mapping[str, int]
    packed: Mapping[str, int]
    sha256: Mapping[str, str]


def read_mar(file: Path) -> Contents:
    """Read every byte once; ArchiveError where it is damaged, would write outside its folder, or unpacks to a bomb."""
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


def requirements_of(file: Path) -> str | None:
    """The file that an archive asks TorchServe to install from; None where it asks for nothing."""
    told = _model(file).get("requirementsFile")
    return str(told) if told else None


def version_of(file: Path) -> str:
    """The version an archive says it is; "1.0" where it says none, as TorchServe has it."""
    return str(_model(file).get("modelVersion") or "1.0")


def _model(file: Path) -> Mapping[str, Any]:
    try:
        return dict(json.loads(extract(file, MANIFEST))["model"])
    except Exception as error:  # as in read_mar
        raise ArchiveError(f"{file} is not a model archive: {error}") from None


def _contents(file: Path) -> Contents:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        gate = Gate(file, "do not serve it", bound_of(file))
        for info in entries:
            kind = stat.S_IFMT(info.external_attr >> 16)
            folder = info.is_dir() and kind in {0, stat.S_IFDIR, stat.S_IFREG}  # a name that ends in / says it
            plain = kind in {0, stat.S_IFREG} and not info.is_dir() and not info.flag_bits & 1  # 1: encrypted
            gate.admit(info.filename, info.file_size, folder=folder, plain=plain)
        files = [info for info in entries if not info.is_dir()]
        sha256 = {info.filename: _sha256(archive, info, file) for info in files}
        manifest = json.loads(_text(archive, MANIFEST))
        name = manifest["model"].get("configFile")
        return Contents(
            manifest,
            _text(archive, name) if name else "",
            {info.filename: info.file_size for info in files},
            {info.filename: info.compress_size for info in files},
            sha256,
        )


def _sha256(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with archive.open(info) as stream:
            while chunk := stream.read(CHUNK):
                digest.update(chunk)
    except Exception as error:  # zlib has an error of its own, and a checksum that is wrong another
        again = "build it again with nox -s archive -- model=NAME fresh=archive"
        raise ArchiveError(f"{file}: {info.filename} is damaged; {again} ({error})") from None
    return digest.hexdigest()


def _text(archive: zipfile.ZipFile, name: str) -> str:
    size = archive.getinfo(name).file_size
    if size > TEXT_BYTES:
        raise ValueError(f"its {name} has {size:,} bytes")
    return archive.read(name).decode()
