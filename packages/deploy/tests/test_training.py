"""What Java learns at one start: used by the installed Java alone, and none of the caller's failures."""

import os
from pathlib import Path

import pytest

from marline.deploy import _settings, training
from marline.deploy._settings import command, default_java_home

OPTION = "-XX:AOTCache="


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "torchserve.aot"
    for module in (_settings, training):
        monkeypatch.setattr(module, "AOT_CACHE", file)
    return file


def test_the_installed_java_begins_with_what_it_learned_and_another_does_not(cache: Path, tmp_path: Path) -> None:
    without = command(tmp_path, default_java_home(), "python")
    cache.write_bytes(b"classes")

    assert f"{OPTION}{cache}" == command(tmp_path, default_java_home(), "python")[1]
    assert [] == [word for word in (*without, *command(tmp_path, tmp_path, "python")) if word.startswith(OPTION)]


def test_a_java_that_does_not_start_is_told_and_leaves_neither_cache_nor_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho no room for this heap\nexit 1\n")
    java.chmod(0o700)
    monkeypatch.setattr(training, "default_java_home", lambda: tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    cache.write_bytes(b"of another Java")

    assert 0 == training.main()

    assert "no room for this heap; TorchServe will start" in capsys.readouterr().err
    assert not cache.exists()
    assert [] == list((tmp_path / f"marline-{os.getuid()}").iterdir())
