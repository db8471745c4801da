"""Where a running server is found: a file only its owner can read, outside the project, because it holds the token."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from marline.core._layers import project_root
from marline.core._manifest import write_json


def state_file(model: str) -> Path:
    """The place of the state of `nox -s serve -- model=NAME` for this clone and user; its folder is 0700."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    clone = hashlib.sha256(str(project_root().resolve()).encode()).hexdigest()[:12]
    folder = home / "marline" / clone
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / f"{model}.json"


def write_state(model: str, state: dict[str, Any]) -> Path:
    """Keep a server's addresses and token, readable by the owner alone."""
    file = state_file(model)
    before = os.umask(0o077)
    try:
        write_json(file, state)
    finally:
        os.umask(before)
    return file


def read_state(model: str) -> dict[str, Any] | None:
    """The state of the running server of a model; None where no server of ours lives."""
    file = state_file(model)
    if not file.is_file():
        return None
    state: dict[str, Any] = json.loads(file.read_text())
    if not Path(f"/proc/{state['pid']}").exists():  # killed without a chance to tidy up
        file.unlink(missing_ok=True)
        return None
    return state
