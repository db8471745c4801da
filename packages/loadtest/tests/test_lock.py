import os
import subprocess
import sys
from pathlib import Path

import pytest

from marline.core import LoadTestError, listening
from marline.loadtest import measuring, wait_until_quiet

HOLD = (
    "import sys; from pathlib import Path; from marline.loadtest import measuring\n"
    "with measuring('a tune of resnet50', lock=Path(sys.argv[1])):\n"
    "    print('held', flush=True); sys.stdin.readline()\n"
)


def test_a_second_measurement_waits_and_says_for_whom(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    said: list[str] = []
    shown: list[str] = []
    with _holder(lock) as holder, listening(lambda _, text: shown.append(text)):

        def release(text: str) -> None:
            said.append(text)
            holder.communicate("\n", timeout=20)

        with measuring("the second", say=release, lock=lock):
            pass

    expected = [f"waiting for a tune of resnet50 (process {holder.pid}), who is measuring on this machine"]
    assert expected == said == shown


def test_the_lock_is_free_when_its_holder_was_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    said: list[str] = []
    with _holder(lock) as holder:

        def kill(text: str) -> None:
            said.append(text)
            holder.kill()

        with measuring("the second", say=kill, lock=lock):
            pass

    assert 1 == len(said)


def test_a_free_lock_is_taken_without_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with measuring("one", say=said.append, lock=tmp_path / "lock"):
            pass

    assert [] == said
    assert 0o666 == (tmp_path / "lock").stat().st_mode & 0o777


def test_a_link_in_place_of_the_lock_is_refused_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "soft").symlink_to(tmp_path / "precious")
    (tmp_path / "hard").hardlink_to(tmp_path / "precious")

    for name in ("soft", "hard"):
        with pytest.raises(LoadTestError, match="remove"), measuring("one", lock=tmp_path / name):
            pass
    assert "mine" == (tmp_path / "precious").read_text()


def _holder(lock: Path) -> subprocess.Popen[str]:
    """One that holds the lock until it is told a line."""
    command = [sys.executable, "-c", HOLD, str(lock)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert "held\n" == holder.stdout.readline()
    return holder


def test_a_machine_that_something_else_keeps_busy_is_not_called_quiet() -> None:
    words = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(words) for _ in range(os.cpu_count() or 1)]
    try:
        quiet = wait_until_quiet(0.0)
    finally:
        for process in busy:
            process.kill()
            process.wait()

    assert not quiet
