"""What stages wrap and export leave, in small, and the archive of it."""

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.archive import archive
from marline.core import ArchiveConfig, Manifest, read_config, seal
from marline.export import export
from marline.handler import handler_of
from marline.load import load
from marline.wrap import wrap

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves its version file open when it is first imported
    import ts  # noqa: F401

ROOT = Path(__file__).parents[3]
SETTINGS: dict[str, Any] = {
    "version": "1.3",
    "handler": None,
    "explain": False,
    "batch_size": 2,
    "max_batch_delay_ms": 30,
    "workers": 4,
    "response_timeout_s": 50,
    "startup_timeout_s": 60,
    "job_queue_size": 700,
    "device_ids": (),
    "micro_batch_size": None,
    "extra_files": [],
    "requirements_file": None,
    "requirements": "off",
}
Build = Callable[..., Manifest]


@pytest.fixture(scope="session")
def config() -> ArchiveConfig:
    """Values that are all different and none of them TorchServe's default."""
    return ArchiveConfig.model_validate(SETTINGS)


@pytest.fixture
def build(config: ArchiveConfig) -> Build:
    """Run stage archive of digits_cnn in RUN, on stages before it that are small."""

    def make(
        run: Path, handler: Path = ROOT / "models" / "digits_cnn" / "handler.py", model: str = "digits_cnn", **more: Any
    ) -> Manifest:
        files = {
            "wrap/repository/config.json": json.dumps({"id2label": {}}),
            "wrap/repository/tracker.json": json.dumps({"collector_url": None, "model": "digits_cnn", "detail": "minimal"}),
            "wrap/repository/modeling_digits_cnn.py": "not for the archive",
            "export/model.pt": "weights" * 100_000,
            "export/golden.json": json.dumps({"pairs": []}),
        }
        for name, text in files.items():
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text(text)
        wrapped, exported = (
            seal(run / stage, model=model, config=config, inputs=[], facts={}, started=time.monotonic())
            for stage in ("wrap", "export")
        )
        (run / "archive").mkdir()
        told = ArchiveConfig.model_validate({**SETTINGS, **more})
        return archive(model, told, wrapped, exported, handler, "cpu", run / "archive")

    return make


@pytest.fixture
def lifecycle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """Run the stages up to archive for a model of this project, without a graph."""

    def make(model: str) -> Manifest:
        monkeypatch.chdir(ROOT)
        settings = read_config([f"model={model}", "export.method=none"]).config
        for stage in ("load", "wrap", "export", "archive"):
            (tmp_path / stage).mkdir()
        loaded = load(model, settings.load, tmp_path / "load")
        wrapped = wrap(model, settings.wrap, loaded, tmp_path / "wrap")
        handler = handler_of(ROOT, model, loaded.facts["task"], settings.handler)
        exported = export(model, settings.export, loaded, wrapped, handler, tmp_path / "export")
        return archive(model, settings.archive, wrapped, exported, handler, "cpu", tmp_path / "archive")

    return make
