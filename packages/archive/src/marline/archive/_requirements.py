"""What a model's `requirements.txt` may say where TorchServe is to install from it, when a model is registered."""

import re
from collections.abc import Iterator
from pathlib import Path

from marline.core import RequestError

NAME = "requirements.txt"  # inside the archive, whatever the file was called
FAMILY = ("torch", "torchvision", "torchaudio")
BYTES, LINE = 256 << 10, 2000
PINNED = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?:\[[\w\s,.-]*\])?\s*==\s*[A-Za-z0-9][A-Za-z0-9.!+_-]*"
    r"(?:\s*;[\w\s.<>=!~()'\"]*)?(?:\s+--hash=\w+:[0-9a-fA-F]+)*",
    re.ASCII,
)
SERVER = "the server brings torch, torchvision and torchaudio, and a second copy beside it would not fit; leave the line out"


def requirement_lines(text: str) -> list[str]:
    """The lines that say something, comments cut off."""
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line]


def unfit(lines: list[str]) -> Iterator[str]:
    """Why a line must not be installed by a server: every line is `name==version`, from an index, and not of torch's family."""
    seen: set[str] = set()
    for line in lines:
        pinned = PINNED.fullmatch(line) if len(line) <= LINE else None
        name = re.sub(r"[-_.]+", "-", (re.match(r"[\w.-]+", line[:LINE]) or [""])[0]).lower()
        if name in FAMILY:
            yield f"{line!r}: {SERVER}"
        elif pinned is None:
            yield f"{line!r} is not name==version: no ranges, addresses, paths or options"
        elif name in seen:
            yield f"{line!r}: {name} is named twice"
        seen.add(name)


def read_requirements(file: Path, *, install: bool) -> list[str]:
    """The lines of a requirements file; RequestError names all that are unfit where they are to be installed."""
    if file.stat().st_size > BYTES:
        raise RequestError(f"{file} has more than {BYTES:,} bytes; a requirements file is name==version lines")
    try:
        lines = requirement_lines(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RequestError(f"{file} is no text: {error}") from None
    wrong = list(unfit(lines)) if install else []
    if wrong:
        raise RequestError("\n".join(f"{file}: {why}" for why in wrong))
    return lines


def not_installed(lines: list[str]) -> str:
    """What to say where requirements travel and are left alone."""
    return (
        f"{NAME} ({len(lines)} lines) is carried but not installed: install it where the server runs, or build with "
        "requirements=install (archive.requirements=install for a model of this project)"
    )
