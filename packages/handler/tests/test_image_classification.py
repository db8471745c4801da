"""The handler of image classifiers prepares images as torchvision does."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image

from marline.core import StageError
from marline.handler import FakeContext, assemble, handler_of, opened

Ask = Callable[..., tuple[list[Any], FakeContext]]
Encoded = Callable[..., bytes]
ROOT = Path(__file__).parents[3]
WEIGHTS = {name: torchvision.models.get_model_weights(name).DEFAULT for name in ("resnet50", "efficientnet_b0")}
# Pillow rounds to whole grey levels after each of its two passes, and torchvision resizes more than the centre, so that
# roundings may fall differently: by a level each time.
LEVELS = 2.01 / 255
SIZES = [(25, 25), (37, 501), (50, 50), (100, 133), (224, 224), (232, 231), (333, 77), (500, 375), (640, 427), (1, 1)]


@pytest.mark.parametrize("told", [{"size": {"shortest_edge": 32}}, {"size": {"height": 8, "width": 8}, "image_mean": [0.5]}])
def test_images_that_it_cannot_prepare_are_refused_at_once(tmp_path: Path, told: dict[str, Any]) -> None:
    """Comes first: the handlers below stay open, and modules of one name are found once."""
    (tmp_path / "config.json").write_text("{}")
    settings = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2, **told}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assemble(handler_of(ROOT, "resnet50", "image-classification", None), tmp_path / "none", tmp_path)

    with (
        pytest.raises(StageError, match=r"size .* this handler makes RGB images of one size"),
        opened(tmp_path, "image_classification"),
    ):
        pass


@pytest.fixture(scope="module", params=WEIGHTS)
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The handler, and torchvision's own transforms, for bilinear (resnet50) and bicubic (efficientnet_b0) resizing."""
    folder = tmp_path_factory.mktemp(request.param)
    transforms = WEIGHTS[request.param].transforms()
    processor = {
        "size": {"shortest_edge": transforms.resize_size[0]},
        "resample": {"bilinear": 2, "bicubic": 3}[transforms.interpolation.value],
        "crop_size": {"height": transforms.crop_size[0], "width": transforms.crop_size[0]},
        "image_mean": transforms.mean,
        "image_std": transforms.std,
    }
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "checkpoint" / "config.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "dog"}}))
    assemble(handler_of(ROOT, "resnet50", "image-classification", None), folder / "checkpoint", folder)
    with opened(folder, "image_classification") as instance:
        yield instance, transforms


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_torchvisions_within_rounding(prepared: tuple[Any, Any], size: tuple[int, int], mode: str) -> None:
    instance, transforms = prepared
    soft = Image.effect_noise((12, 12), 90).resize(size, Image.Resampling.BICUBIC)  # as soft as photographs are
    image = (
        soft if mode == "L" else Image.merge("RGB", [soft, soft.transpose(Image.Transpose(0)), soft.point(lambda v: 255 - v)])
    )

    got = instance.functions.preprocess(image)

    expected = transforms(image.convert("RGB"))
    assert (expected.shape, torch.float32) == (got.shape, got.dtype)
    off = (expected - got).abs() * torch.tensor(transforms.std).view(3, 1, 1)
    assert off.max() <= LEVELS
    assert off.mean() <= LEVELS / 4


def test_answers_are_the_most_likely_labels_with_their_probabilities(
    prepared: tuple[Any, Any], ask: Ask, encoded: Encoded
) -> None:
    instance, _ = prepared
    instance.device = torch.device("cpu")
    instance.model = lambda batch: torch.tensor([[1.0, 3.0, 2.0]]).repeat(len(batch), 1)

    answers, _ = ask(instance, encoded(Image.new("RGB", (300, 200)), "JPEG"), b"text")

    best = answers[0]["output"]
    assert [("dog", 1), ("2", 2), ("cat", 0)] == [(row["label"], row["index"]) for row in best]
    assert pytest.approx(1) == sum(row["probability"] for row in best)
    assert "expected a JPEG, PNG or WebP image, got str" == answers[1]["message"]


def test_the_handler_is_the_one_named_else_the_models_own_else_the_tasks() -> None:
    assert ROOT / "x.py" == handler_of(ROOT, "digits_cnn", "image-classification", "x.py")
    assert ROOT / "models" / "digits_cnn" / "handler.py" == handler_of(ROOT, "digits_cnn", "image-classification", None)
    assert "image_classification.py" == handler_of(ROOT, "resnet50", "image-classification", None).name
