"""What a long benchmark has measured already: each result is a file, so that it goes on where it was ended."""

import json
from collections.abc import Callable
from typing import Any

from marline.core import code_sha256, machine, project_root, write_json

FOLDER = project_root() / "artifacts" / "bench" / "tune"


def once(name: str, measure: Callable[[], Any]) -> Any:
    """The result `name` as measured before by the same code on the same machine, else what `measure` returns (JSON), kept."""
    file = FOLDER / f"{name}.json"
    told = {"code": code_sha256("tune"), "machine": machine()}
    if file.is_file() and (kept := json.loads(file.read_text()))["told"] == told:
        return kept["result"]
    result = measure()
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"told": told, "result": result})
    return json.loads(file.read_text())["result"]
