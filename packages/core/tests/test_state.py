import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from marline.core import read_state, state_file, write_state


@pytest.fixture
def home(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(project / "state"))
    return project / "state"


def test_the_state_is_found_again_and_for_the_owner_alone(home: Path) -> None:
    file = write_state("tiny", {"pid": os.getpid(), "token": "secret"})

    assert {"pid": os.getpid(), "token": "secret"} == read_state("tiny")
    assert home in file.parents
    assert (0o600, 0o700) == (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode))
    assert [file] == [*file.parent.iterdir()]


def test_writing_the_state_leaves_the_umask_as_it_was(home: Path) -> None:
    before = os.umask(0o027)
    try:
        write_state("tiny", {"pid": 1})
        during = os.umask(0o027)
    finally:
        os.umask(before)

    assert 0o027 == during


def test_the_state_of_a_dead_process_is_forgotten(home: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(30)
    write_state("tiny", {"pid": child.pid})

    assert None is read_state("tiny")
    assert not state_file("tiny").exists()


def test_a_model_that_is_not_served_has_no_state(home: Path) -> None:
    write_state("tiny", {"pid": os.getpid()})

    assert None is read_state("other")


def test_two_clones_do_not_share_their_servers(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_state("tiny", {"pid": os.getpid()})
    (tmp_path / "clone").mkdir()
    (tmp_path / "configs").rename(tmp_path / "clone" / "configs")
    monkeypatch.chdir(tmp_path / "clone")

    assert None is read_state("tiny")
