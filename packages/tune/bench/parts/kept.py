"""What a long benchmark has measured already: each result is a file, so that it goes on where it was ended."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marline.core import code_sha256, file_sha256, json_sha256, machine, project_root, write_json

FOLDER = project_root() / "artifacts" / "bench" / "tune"
# What runs in a load test of an emulated accelerator, the server's own settings aside.
MEASURING = ("packages/handler/src", "packages/loadtest/src", "loadtests", "configs/accelerators")


def once(name: str, measure: Callable[[], Any], *, asked: Any, code: tuple[str, ...] = ()) -> Any:
    """What was measured as `name` before, asked the same of the same code and machine; else what `measure` returns, kept.

    Both are JSON. The code is the tuner's and all it stands on, or else what `code` names: files and folders of the project.
    """
    file = FOLDER / f"{name}.json"
    told = {"asked": json_sha256(asked), "code": _sha256_of(code) if code else code_sha256("tune"), "machine": machine()}
    if file.is_file() and (kept := json.loads(file.read_text()))["told"] == told:
        return kept["result"]
    result = measure()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"told": told, "result": result})
    return json.loads(file.read_text())["result"]


def _sha256_of(code: tuple[str, ...]) -> str:
    paths = {one: project_root() / one for one in code}
    return json_sha256({one: _source_sha256(path) if path.is_dir() else file_sha256(path) for one, path in paths.items()})


def _source_sha256(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.suffix in {".py", ".yaml"})
    return {str(file.relative_to(folder)): file_sha256(file) for file in files}
