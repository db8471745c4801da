"""What an entry of an archive may be called, and how many there may be: the same for what is read and what is unpacked."""

import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from marline.core import ArchiveError

ENTRIES = 20_000  # fewer than this has any package that a model brings along
TOTAL_BYTES = 256 << 30
SMALL_BYTES, RATIO = 64 << 20, 200  # weights hardly deflate; what grows more than this beyond 64 MiB is no archive of a model


@dataclass
class Gate:
    """Admits the entries of one archive in order, up to `bound` bytes; `remedy` ends every refusal."""

    archive: Path
    remedy: str
    bound: int
    total: int = 0
    seen: dict[str, tuple[str, bool]] = field(default_factory=dict)  # folded path -> its spelling, whether it is a folder
    entries: int = 0

    def admit(self, name: str, size: int, *, folder: bool, plain: bool) -> PurePosixPath:
        """The normal form of an entry's path; ArchiveError where it must not be written below a folder of ours."""
        self.entries += 1
        if self.entries > ENTRIES:
            raise self.refused(f"it has more than {ENTRIES:,} entries")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or _strange(name) or not (folder or plain):
            raise self.refused(f"the entry {name!r} leaves the archive's folder or is no plain file")
        self.grow(size)
        for parent in reversed(path.parents[:-1]):
            self._take(parent, folder=True)
        if path.parts:
            self._take(path, folder=folder)
        elif not folder:
            raise self.refused(f"the entry {name!r} has no name")
        return path

    def grow(self, size: int) -> None:
        """Count bytes that will be written."""
        self.total += size
        if self.total > self.bound:
            raise self.refused(f"it unpacks to more than {self.bound:,} bytes, far more than it weighs")

    def refused(self, why: str) -> ArchiveError:
        return ArchiveError(f"{self.archive}: {why}; {self.remedy}")

    def _take(self, path: PurePosixPath, *, folder: bool) -> None:
        key = unicodedata.normalize("NFC", str(path)).casefold()
        if key not in self.seen:
            self.seen[key] = (str(path), folder)
            return
        spelling, is_folder = self.seen[key]
        if spelling != str(path):
            raise self.refused(f"{spelling!r} and {str(path)!r} are one name where case does not count")
        if folder != is_folder:
            raise self.refused(f"{spelling!r} is a file and a folder")
        if not folder:
            raise self.refused(f"two entries are called {spelling!r}")


def bound_of(archive: Path) -> int:
    """How many bytes an archive may unpack to."""
    return min(TOTAL_BYTES, SMALL_BYTES + RATIO * archive.stat().st_size)


def _strange(name: str) -> bool:
    """Backslashes separate on Windows; control characters end names and move cursors; lone surrogates are no text."""
    return "\\" in name or not name.isprintable()
