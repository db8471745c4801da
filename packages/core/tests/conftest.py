"""A project with the configuration files of this one, in a folder of its own."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.core import Manifest, Section, seal

ROOT = Path(__file__).parents[3]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: `configs/` as they are, nothing else."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sealed() -> Callable[..., Manifest]:
    """Finish a stage in FOLDER with these files (name -> text)."""

    def make(folder: Path, files: dict[str, str], facts: dict[str, Any] | None = None, *inputs: Manifest) -> Manifest:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return seal(folder, model="tiny", config=Section(), inputs=inputs, facts=facts or {}, started=time.monotonic())

    return make
