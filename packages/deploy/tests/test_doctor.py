import subprocess
import sys
import time
from pathlib import Path

import pytest

from marline.archive import build
from marline.core import read_config
from marline.deploy.doctor import examine_archive, main

HANDLER = "import {needed}\n\n\ndef handle(data, context):\n    return data\n"


def archive_of(folder: Path, needed: str) -> Path:
    source = folder / "a_handler.py"
    source.write_text(HANDLER.format(needed=needed))
    return build("a_model", handler=source, export_path=folder).file


def test_it_shows_this_machine_and_says_what_would_stop_a_run() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "marline.deploy.doctor"], capture_output=True, text=True, check=False, timeout=60
    )

    names = [line[5:].split("  ")[0] for line in shown.stdout.splitlines()]
    assert {"processor", "gpu", "java", "memory", "shared memory", "settings", "versions"} <= set(names), shown.stderr
    assert (shown.returncode == 0) == ("FAIL" not in shown.stdout)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("config=/nowhere", "cannot be read"), ("inspect=/nowhere.mar", "there is no such file"), ("a=b", "'a' from")],
)
def test_what_is_not_there_is_a_wrong_request(word: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main([word])
    assert expected in capsys.readouterr().err


def test_somebody_s_unsafe_configuration_fails_with_its_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.properties"
    file.write_text("inference_address=http://0.0.0.0:8080\ndisable_token_authorization=true\n")

    assert 1 == main([f"config={file}"])
    told = capsys.readouterr().out
    assert "FAIL unsafe" in told
    assert "disable_token_authorization=true: whoever reaches a port may ask, register and remove" in told
    assert "ok   surprising" in told


def test_a_handler_that_imports_is_told_so_and_one_that_cannot_by_its_own_words(tmp_path: Path) -> None:
    config = read_config(["model=digits_cnn"]).config
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()

    good = list(examine_archive(archive_of(tmp_path / "good", "json"), config))
    began = time.monotonic()
    bad = list(examine_archive(archive_of(tmp_path / "bad", "nobody_has_it"), config))

    assert [(True, "a_handler imports")] == [(one.good, one.value) for one in good[1:]]
    assert time.monotonic() - began < 20
    assert [(False, "a_handler cannot be imported: ModuleNotFoundError: No module named 'nobody_has_it'")] == [
        (one.good, one.value) for one in bad[1:]
    ]


def test_a_damaged_archive_is_a_finding(tmp_path: Path) -> None:
    file = archive_of(tmp_path, "json")
    file.write_bytes(file.read_bytes()[:-100])

    (found,) = examine_archive(file, read_config(["model=digits_cnn"]).config)

    assert not found.good
    assert "is not a model archive" in found.value + found.remedy
