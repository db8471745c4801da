"""The private folder of each running server, and the removal of those whose server was killed.

<temp>/marline-<uid>/<random>/   config.properties, log4j2.xml, store/, workflows/, temp/, batches/, key_file.json
"""

import json
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path

from marline.core import ServerError, write_json
from marline.deploy._guard import end_strays

STARTING_S = 60.0


def new_folder() -> Path:
    """Make the folder of one server, readable by its owner alone; short, because socket paths are."""
    folder = _home() / secrets.token_hex(4)
    folder.mkdir(mode=0o700)
    for name in ("store", "temp", "batches"):
        (folder / name).mkdir()
    (folder / "workflows").mkdir(mode=0o500)  # TorchServe 0.12 downloads what is posted there, model API or not
    return folder


def own(folder: Path, pid: int) -> None:
    """Note which process looks after a folder."""
    write_json(folder / "owner.json", {"pid": pid, "began": began(pid)[1]})


def began(pid: int) -> tuple[str, int]:
    """The state of a process ("" where there is none, Z for a zombie), and the clock ticks from the machine's start to its own.

    Ticks, as the clock of the day may be set while a server runs, and its folder would be taken for one that was left.
    """
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # proc(5): the name may hold anything
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return told[0], int(told[19])


def sweep() -> None:
    """Remove folders whose guard is gone, after ending what may still run in them."""
    for folder in _home().iterdir():
        if not _guarded(folder):
            end_strays(folder)
            shutil.rmtree(folder, ignore_errors=True)


def servers() -> tuple[int, int]:
    """How many servers of ours run on this machine, and how many folders were left behind."""
    guarded = [_guarded(folder) for folder in _home().iterdir()]
    return sum(guarded), len(guarded) - sum(guarded)


def _home() -> Path:
    home = Path(tempfile.gettempdir()) / f"marline-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.is_symlink() or home.stat().st_uid != os.getuid():
        raise ServerError(f"{home} belongs to somebody else; set TMPDIR to a folder of your own")
    return home


def _guarded(folder: Path) -> bool:
    try:
        owner = json.loads((folder / "owner.json").read_text())
    except FileNotFoundError:  # a server that is being started notes its owner within a second
        return time.time() - folder.stat().st_mtime < STARTING_S
    state, ticks = began(owner["pid"])
    # killed, it stays a zombie for as long as its holder lives and does not look
    return state not in {"", "Z"} and ticks == owner.get("began", ticks)  # another version of ours may have noted no ticks
