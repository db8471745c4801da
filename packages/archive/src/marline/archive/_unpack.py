"""Lays out what is in an archive of extra files: a tar, however it is compressed, or a zip.

What an archive is, its bytes say: a plain tar called `x.tar.gz` is read as what it is. Only plain files come out of one.
"""

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Any

from marline.archive._entries import Gate, bound_of
from marline.core import ArchiveError, MarlineError

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
COMPRESSED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second is an empty one
CHUNK = 1 << 20
CLUTTER = ("__pycache__", "__MACOSX", ".DS_Store")


def unpack(archive: Path, folder: Path) -> dict[str, Path]:
    """Write the files of an archive below `folder`; name inside -> file.

    ArchiveError where it is damaged or no archive; nothing is written where it is too large or would write elsewhere.
    """
    gate = Gate(archive, "it is not unpacked; pack it anew with tar -czf FILE.tar.gz -C FOLDER .", bound_of(archive))
    try:
        with archive.open("rb") as stream:
            start = stream.read(6)
        if start.startswith(ZIP):
            return _zip(archive, folder, gate)
        return _tar(archive, start, folder, gate)
    except MarlineError:
        raise
    except Exception as error:  # damaged bytes raise errors of many kinds in zipfile, tarfile, zlib and lzma
        raise ArchiveError(f"{archive} cannot be unpacked as a tar or zip: {type(error).__name__}: {error}") from None


def is_clutter(path: PurePosixPath) -> bool:
    """What tools leave behind and no model needs; torch-model-archiver leaves it out too."""
    return any(part in CLUTTER or part.startswith("._") for part in path.parts)


def _zip(archive: Path, folder: Path, gate: Gate) -> dict[str, Path]:
    with zipfile.ZipFile(archive) as packed:
        files = {}
        for info in packed.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            plain = kind in {0, stat.S_IFREG} and not info.flag_bits & 1  # 1: encrypted
            path = gate.admit(info.filename, info.file_size, folder=info.is_dir() and kind != stat.S_IFLNK, plain=plain)
            if not info.is_dir() and not is_clutter(path):
                files[path] = info
        return {str(path): _write(packed.open(info), folder / path) for path, info in files.items()}


def _tar(archive: Path, start: bytes, folder: Path, gate: Gate) -> dict[str, Path]:
    opener = next((opener for magic, opener in COMPRESSED.items() if start.startswith(magic)), None)
    plain = archive if opener is None else _decompressed(archive, opener, folder.with_name(f"{folder.name}.tar"), gate)
    with tarfile.open(plain, "r:") as packed:
        files = {}
        for info in packed:
            path = gate.admit(info.name, info.size, folder=info.isdir(), plain=info.isreg() and not info.issparse())
            if info.isreg() and not is_clutter(path):
                files[path] = info
        _refuse_cut(plain, packed.offset, gate)
        return {str(path): _write(packed.extractfile(info), folder / path) for path, info in files.items()}


def _refuse_cut(tar: Path, end: int, gate: Gate) -> None:
    """A tar ends with a block of zeros; one that was cut before it is a whole one to tarfile."""
    with tar.open("rb") as stream:
        stream.seek(end)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise gate.refused("it is cut short")


def _decompressed(archive: Path, opener: Callable[[Path], Any], file: Path, gate: Gate) -> Path:
    """The tar alone, first, so that no header in it can ask for more memory than the whole may have."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with opener(archive) as source, file.open("wb") as target:
        while chunk := source.read(CHUNK):
            gate.grow(len(chunk))
            target.write(chunk)
    gate.total = 0  # its files are counted once more, one by one
    return file


def _write(source: IO[bytes] | None, file: Path) -> Path:
    assert source is not None  # tarfile has content for every plain file
    file.parent.mkdir(parents=True, exist_ok=True)
    with source, file.open("xb") as target:
        shutil.copyfileobj(source, target, CHUNK)
    return file
