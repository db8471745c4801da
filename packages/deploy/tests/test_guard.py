"""The guard and the sweep, with `sleep` in the place of Java."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from marline.deploy._folders import began, new_folder, own, servers, sweep
from marline.deploy._guard import guard_command

DEADLINE_S = 15.0


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def guard(folder: Path, temp: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "import time; time.sleep(600)", str(folder)]
    told = {"command": command, "env": {}, "logs": str(temp)}
    (folder / "guard.json").write_text(json.dumps(told))
    return subprocess.Popen(guard_command(folder), stdin=subprocess.PIPE)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def java_of(folder: Path) -> int:
    until(lambda: bool((folder / "java.pid").exists() and (folder / "java.pid").read_text()))
    return int((folder / "java.pid").read_text())


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_a_folder_is_its_owner_s_alone(tmp_path: Path) -> None:
    folder = new_folder()

    assert tmp_path / f"marline-{os.getuid()}" == folder.parent
    assert (0o700, 0o700) == (folder.stat().st_mode & 0o777, folder.parent.stat().st_mode & 0o777)
    assert 0o500 == (folder / "workflows").stat().st_mode & 0o777


def test_when_our_end_of_its_stdin_closes_the_process_and_the_folder_go(tmp_path: Path) -> None:
    folder = new_folder()
    with guard(folder, tmp_path) as process:
        java = java_of(folder)
        assert process.stdin is not None
        process.stdin.close()
        process.wait(DEADLINE_S)

        assert gone(java)
        assert not folder.exists()


def test_when_the_guard_is_killed_the_kernel_kills_its_process(tmp_path: Path) -> None:
    folder = new_folder()
    with guard(folder, tmp_path) as process:
        java = java_of(folder)
        process.kill()
        process.wait(DEADLINE_S)

        until(lambda: gone(java))
        assert folder.exists()


def test_the_guard_ends_with_its_process_and_its_code(tmp_path: Path) -> None:
    folder = new_folder()
    with guard(folder, tmp_path) as process:
        psutil.Process(java_of(folder)).kill()

        assert 0 != process.wait(DEADLINE_S)
    assert not folder.exists()


def test_a_sweep_removes_what_a_killed_guard_left_and_spares_what_lives() -> None:
    left, live = (new_folder() for _ in range(2))
    (left / "owner.json").write_text(json.dumps({"pid": os.getpid(), "began": 0}))  # its number went to somebody else
    own(live, os.getpid())
    stray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"{left}/.ts.sock.9000"])
    threading.Thread(target=stray.wait).start()  # as init does with an orphan

    before = servers()
    sweep()

    assert ((1, 1), (1, 0)) == (before, servers())
    assert 0 != stray.wait(DEADLINE_S)
    assert [live] == list(live.parent.iterdir())


def test_a_killed_guard_guards_nothing_though_its_holder_has_not_looked(tmp_path: Path) -> None:
    folder = new_folder()
    with guard(folder, tmp_path) as process:
        java_of(folder)
        own(folder, process.pid)
        process.kill()
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)

        before = servers()
        sweep()

    assert ((0, 1), (0, 0)) == (before, servers())


def test_when_its_process_is_killed_what_it_left_running_is_ended(tmp_path: Path) -> None:
    folder = new_folder()
    with guard(folder, tmp_path) as process:
        java = java_of(folder)
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", f"{folder}/.ts.sock.9000"])
        threading.Thread(target=worker.wait).start()

        psutil.Process(java).kill()

        assert 0 != worker.wait(DEADLINE_S)
        process.wait(DEADLINE_S)
    assert not folder.exists()


def test_a_process_is_known_by_when_it_began() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        until(lambda: began(process.pid)[0] == "S")

        assert psutil.Process(process.pid).create_time() == pytest.approx(
            psutil.boot_time() + began(process.pid)[1] / os.sysconf("SC_CLK_TCK"), abs=1
        )
        process.kill()
    assert ("", 0) == began(process.pid)
