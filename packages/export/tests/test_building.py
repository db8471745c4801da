"""The C++ half of a proof, built beforehand by `nox -s env`."""

import shutil
from pathlib import Path

import pytest

from marline.export import _building


def test_it_is_quiet_where_it_can_be_built(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler here; apt install g++")

    assert (0, "") == (_building.main(), capsys.readouterr().err)


def test_without_a_compiler_it_says_so_and_fails_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert 0 == _building.main()
    assert "there is no C++ compiler on this machine (apt install g++)" in capsys.readouterr().err
