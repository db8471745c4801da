"""A handler of ours is used only where it does what the model's own processor or pooling does."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from marline.core import ExportConfig, Manifest, StageError, seal
from marline.export._preparation import check_preparation
from marline.handler import TASKS

hf: Any = transformers
Wrapped = Callable[[], Manifest]
SIZE = {"height": 8, "width": 8}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small colourful picture."""
    file = tmp_path / "picture.png"
    Image.linear_gradient("L").resize((8, 8)).convert("RGB").point(lambda level: level // 2 + 60).save(file)
    return file


@pytest.fixture
def wrapped(tmp_path: Path, quick: Callable[..., ExportConfig]) -> Callable[[], Manifest]:
    """The manifest of stage wrap, which left what is in the test's repository."""

    def make() -> Manifest:
        (tmp_path / "repository").mkdir(exist_ok=True)
        (tmp_path / "repository" / "config.json").write_text("{}")
        facts = {"kind": "transformers"}
        return seal(tmp_path, model="tiny", config=quick(), inputs=[], facts=facts, started=time.monotonic())

    return make


def pixels(image: Path) -> torch.Tensor:
    """What our handler makes of the picture with a mean and deviation of a half, float32 [3, 8, 8]."""
    with Image.open(image) as opened:
        levels = torch.frombuffer(bytearray(opened.tobytes()), dtype=torch.uint8)
    return levels.view(8, 8, 3).permute(2, 0, 1).float() / 127.5 - 1


def test_the_same_pixels_are_fine(wrapped: Wrapped, tmp_path: Path, image: Path) -> None:
    hf.ViTImageProcessor(size=SIZE).save_pretrained(tmp_path / "repository")

    check_preparation(TASKS["image-classification"], wrapped(), [image], [pixels(image)])


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"size": SIZE, "do_rescale": False}, r"its ViTImageProcessor prepares other pixels, \d+% of their spread away"),
        ({"size": SIZE, "image_mean": [0.2] * 3}, r"its ViTImageProcessor prepares other pixels"),
        ({"size": {"height": 4, "width": 4}}, r"makes \[3, 4, 4\] of picture\.png, our handler \[3, 8, 8\]; write models/NAME"),
    ],
)
def test_other_pixels_are_refused(wrapped: Wrapped, tmp_path: Path, image: Path, told: dict[str, Any], message: str) -> None:
    hf.ViTImageProcessor(**told).save_pretrained(tmp_path / "repository")

    with pytest.raises(StageError, match=message):
        check_preparation(TASKS["image-classification"], wrapped(), [image], [pixels(image)])
    check_preparation(tmp_path / "handler.py", wrapped(), [image], [pixels(image)])  # one's own knows best


@pytest.mark.parametrize(
    ("modules", "mode", "message"),
    [
        (["Transformer", "Pooling", "Normalize"], "mean_tokens", None),
        (["Transformer", "Pooling"], "cls_token", r"pools by pooling_mode_cls_token, not by the mean"),
        (["Transformer", "Pooling", "Dense"], "mean_tokens", r"sentence-transformers adds Dense"),
    ],
)
def test_another_pooling_is_refused(
    wrapped: Wrapped, tmp_path: Path, modules: list[str], mode: str, message: str | None
) -> None:
    manifest = wrapped()
    told = [{"path": f"{index}_{name}", "type": f"sentence_transformers.models.{name}"} for index, name in enumerate(modules)]
    (tmp_path / "repository" / "modules.json").write_text(json.dumps(told))
    (tmp_path / "repository" / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 4, "pooling_mode_mean_tokens": False, f"pooling_mode_{mode}": True}
    (tmp_path / "repository" / "1_Pooling" / "config.json").write_text(json.dumps(pooling))

    if message is None:
        check_preparation(TASKS["feature-extraction"], manifest, [], [])
    else:
        with pytest.raises(StageError, match=message):
            check_preparation(TASKS["feature-extraction"], manifest, [], [])
