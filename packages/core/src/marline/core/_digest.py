"""Digests that decide whether work may be reused: of files, of code, of the machine."""

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from functools import cache
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from marline.core._gpus import seen_gpus


def file_sha256(file: Path) -> str:
    """Sha256 of a file's bytes, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def json_sha256(value: Any) -> str:
    """Sha256 of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def folder_sha256(folder: Path) -> str:
    """Sha256 over names and bytes of all files below a folder, byte code aside."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return json_sha256({str(path.relative_to(folder)): file_sha256(path) for path in files})


@cache
def code_sha256(package: str) -> str:
    """Sha256 over the source of `marline.<package>` and of every marline package it depends on."""
    return json_sha256({name: _source_sha256(name) for name in sorted(set(_with_siblings(package)))})


def _with_siblings(package: str) -> Iterator[str]:
    yield package
    for line in requires(f"marline-{package}") or []:
        if line.startswith("marline-"):
            yield from _with_siblings(line.removeprefix("marline-"))


def _source_sha256(package: str) -> str:
    spec = find_spec(f"marline.{package}")
    assert spec is not None, package
    assert spec.origin is not None, package
    return folder_sha256(Path(spec.origin).parent)


@cache
def machine() -> dict[str, Any]:
    """What decides speed here: processor, cores and GPUs we may use, memory. Measurements are only valid on the same."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpus": [gpu.name for gpu in seen_gpus()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
