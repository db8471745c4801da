"""Versions of digits_cnn that can be told apart by what they answer, and broken ones."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from marline.deploy import Release, content_type_of
from marline.handler import Pair, read_golden
from packages.handler.bench.parts.archives import Life

APART = 100  # what the other version adds to a digit
RAISES = ("    if not isinstance", '    raise RuntimeError("the weights are of another model")\n    if not isinstance')
HANGS = ("handler = handler_factory(", "import time\n\ntime.sleep(600)\nhandler = handler_factory(")
OTHER = ('"digit": digit,', f'"digit": digit + {APART},')


@dataclass(frozen=True, slots=True)
class Versions:
    """The archive as it is and the other one, with what each answers; samples and their digits."""

    releases: tuple[Release, Release]
    samples: Sequence[Path]
    folder: Path

    def broken(self, change: tuple[str, str], name: str) -> Release:
        """A third version, made by a change of its handler."""
        return replace(self.releases[0], archive=_changed(self.releases[0].archive, self.folder / name, change))

    def wrong(self) -> Release:
        """A third version whose answers are the other one's, while its golden pairs are not."""
        return self.broken((OTHER[0], OTHER[1].replace(str(APART), str(2 * APART))), "wrong")


def versions(made: Life, folder: Path) -> Versions:
    """Both versions, written below `folder`; they call themselves the same, as two runs of one model do."""
    pairs = read_golden(made.exported.path("golden.json"))
    samples = sorted(made.loaded.path("sample").iterdir())
    told: dict[str, Any] = {
        "batch_size": 4,
        "max_batch_delay_ms": 5,
        "workers": 1,
        "atol": made.exported.facts["atol"],
        "rtol": made.exported.facts["rtol"],
        "samples": [(sample.read_bytes(), content_type_of(sample.name)) for sample in samples],
    }
    one = Release(archive=made.archive, pairs=pairs, **told)
    other = Release(archive=_changed(made.archive, folder / "other", OTHER), pairs=[_other(pair) for pair in pairs], **told)
    return Versions((one, other), samples, folder)


def _changed(archive: Path, folder: Path, change: tuple[str, str]) -> Path:
    """A copy whose handler is changed."""
    folder.mkdir()
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(folder / archive.name, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            if entry.filename == "handler.py":
                assert change[0].encode() in content
                content = content.replace(change[0].encode(), change[1].encode())
            new.writestr(entry, content)
    return folder / archive.name


def _other(pair: Pair) -> Pair:
    output = {**pair.answer["output"], "digit": pair.answer["output"]["digit"] + APART}
    return replace(pair, answer={**pair.answer, "output": output})
