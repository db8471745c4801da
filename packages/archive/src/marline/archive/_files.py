"""Which files go into an archive, and under which names."""

import os
from collections.abc import Mapping, Sequence
from filecmp import cmp
from pathlib import Path, PurePosixPath

from marline.archive._unpack import SUFFIXES, is_clutter, unpack
from marline.core import RequestError


def existing(told: str | Path, word: str) -> Path:
    """A file that was named by `word=`; RequestError where there is none."""
    file = Path(told)
    if not file.is_file():
        raise RequestError(f"{word}={file}: there is no such file")
    return file


def add(files: dict[str, Path], more: Mapping[str, Path]) -> None:
    """Put files beside those that are there; RequestError where two different ones have one name, or differ in case alone."""
    folded = {name.casefold(): name for name in files}
    for name, file in more.items():
        other = folded.get(name.casefold())
        if other is not None and not (other == name and cmp(files[other], file, shallow=False)):
            raise RequestError(f"{file} and {files[other]} would both be {name} in the archive; rename one or leave it out")
        files[name] = file
        folded[name.casefold()] = name


def extras(told: Sequence[str | Path], work: Path) -> dict[str, Path]:
    """What `extra_files` names, as it lies in the archive's root: name inside -> file.

    A file comes as it is. An archive comes as it is too, as with torch-model-archiver, and so does all that is in it, so
    that it can be imported before any handler could unpack it. The files of a folder come without the folder's own name,
    as with torch-model-archiver, unless it is a Python package.
    """
    found: dict[str, Path] = {}
    for number, each in enumerate(told):
        place = Path(each)
        if place.is_dir():
            add(found, _folder(place))
        else:
            add(found, {existing(place, "extra_files").name: place})
            if place.name.lower().endswith(SUFFIXES):
                add(found, unpack(place, work / f"extra-{number}"))
    return found


def _folder(folder: Path) -> dict[str, Path]:
    prefix = PurePosixPath(folder.resolve().name) if (folder / "__init__.py").is_file() else PurePosixPath()
    found: dict[str, Path] = {}
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not is_clutter(PurePosixPath(name)))
        links = [here / name for name in folders if (here / name).is_symlink()]
        if links:
            raise RequestError(f"extra_files={folder}: {links[0]} is a link to a folder; copy what it points to")
        for name in sorted(names):
            if not is_clutter(PurePosixPath(name)):
                file = existing(here / name, "extra_files")
                found[str(prefix / file.relative_to(folder).as_posix())] = file
    return found
