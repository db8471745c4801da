"""Python environments beside ours, for what must not share it; kept in artifacts/.bench between runs."""

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement

from marline.core import StageError, project_root

PIP_S = 300.0


def environment(name: str, requirements: Sequence[str], *, ours_too: bool) -> Path:
    """The interpreter of an environment with these requirements, and what is installed with us where asked for."""
    folder = _place(name, [*requirements, str(ours_too)])
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", *requirements])
        if ours_too:  # torch and torchvision above all: after pip, so that it has chosen all others for itself
            (_site(folder) / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        (folder / "made").touch()
    return python


def packages(name: str, requirements: Sequence[str]) -> Path:
    """A folder with packages in it, and without what they depend on: to be put into an archive."""
    folder = _place(name, requirements)
    if not (folder.with_suffix(".made")).exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *requirements])
        folder.with_suffix(".made").touch()
    return folder


def lend(python: Path, distribution: str) -> list[str]:
    """Link what is installed with us as `distribution`, and what it depends on, into another environment; their names."""
    site, names = _site(python.parents[1]), sorted(_closure(distribution))
    for name in names:
        found = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in {"..", "__pycache__"}}:
            if not (site / top).exists():
                (site / top).symlink_to(str(found.locate_file(top)))
    return names


def _closure(distribution: str, seen: frozenset[str] = frozenset()) -> frozenset[str]:
    try:
        required = importlib.metadata.distribution(distribution).requires or []
    except importlib.metadata.PackageNotFoundError:  # not needed on this platform
        return seen
    seen |= {distribution}
    for name in _names(required):
        if name not in seen:
            seen = _closure(name, seen)
    return seen


def _names(required: Sequence[str]) -> Iterator[str]:
    for line in required:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name


def _place(name: str, told: Sequence[str]) -> Path:
    digest = hashlib.sha256("\n".join([sys.version, sys.prefix, *told]).encode()).hexdigest()[:8]
    return project_root() / "artifacts" / ".bench" / f"{name}-{digest}"


def _site(folder: Path) -> Path:
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


def _run(command: list[str]) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PIP_S, check=False)
    if ran.returncode != 0:
        said = [line for line in ran.stderr.splitlines() if line.startswith("ERROR")] or ran.stderr.splitlines()[-1:]
        raise StageError(f"{' '.join(command[1:5])} … ended with code {ran.returncode}: {' '.join(said)[:400]}")
