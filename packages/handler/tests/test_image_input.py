"""Images become the pixels that the model's own processor makes of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from marline.handler import FakeContext

hf: Any = transformers
Ask = Callable[..., tuple[list[Any], FakeContext]]
Encoded = Callable[..., bytes]
Open = Callable[..., Any]
Photo = Callable[[int, int], Image.Image]
MODELS = Path(__file__).parents[3] / "models"
SIZES = [(100, 133), (640, 427), (333, 77), (97, 131), (501, 37), (20, 20), (1000, 10)]
SHARE = 0.01  # of the pixels' spread: what is left is rounding
TASKS = {"vit_tiny": "image-classification", "detr_tiny": "object-detection", "sam_tiny": "mask-generation"}
# DETR's processor pads to the largest image of a batch; ours to the frame, so that a batch has one size.
FRAMES = {"vit_tiny": {}, "detr_tiny": {"pad_size": {"height": 96, "width": 96}}, "sam_tiny": {}}


@pytest.mark.parametrize("name", TASKS)
def test_pixels_are_those_of_the_models_own_processor(shipped: Open, photo: Photo, encoded: Encoded, name: str) -> None:
    processor = hf.AutoImageProcessor.from_pretrained(MODELS / name, local_files_only=True)
    instance = shipped(TASKS[name], MODELS / name)

    for size in SIZES:
        image = photo(*size)
        sample = instance.sample({"body": encoded(image, "PNG")})
        theirs = processor(image, return_tensors="pt", **FRAMES[name])
        ours = sample if isinstance(sample, dict) else {"pixel_values": sample}
        assert [key for key in ("pixel_values", "pixel_mask") if key in theirs] == list(ours)
        for key, tensor in ours.items():
            expected = theirs[key][0]
            assert (expected.shape, expected.dtype) == (tensor.shape, tensor.dtype)
            assert (tensor - expected).abs().float().mean() <= SHARE * expected.float().std()


@pytest.mark.parametrize("size", [(1, 1), (3, 100), (1, 5000), (5000, 1)])
def test_an_image_as_narrow_as_a_line_keeps_a_pixel(
    shipped: Open, photo: Photo, encoded: Encoded, size: tuple[int, int]
) -> None:
    sample = shipped("object-detection", MODELS / "detr_tiny").sample({"body": encoded(photo(*size), "PNG")})

    assert (3, 96, 96) == sample["pixel_values"].shape
    assert 0 < sample["pixel_mask"].sum() <= 96 * 96


@pytest.mark.parametrize("size", [(40, 900), (900, 40), (64, 90), (20, 20_000)])
def test_the_centre_of_a_strip_is_that_of_any_other_image(
    shipped: Open, photo: Photo, encoded: Encoded, tmp_path: Path, size: tuple[int, int]
) -> None:
    settings = json.loads((MODELS / "vit_tiny" / "preprocessor_config.json").read_text())
    crop = {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 28, "width": 28}, "folded": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**settings, **crop}))
    (tmp_path / "config.json").write_text("{}")
    image = photo(*size)

    sample = shipped("image-classification", tmp_path).sample({"body": encoded(image, "PNG")})

    wide, high = (32 * edge // min(size) for edge in size)
    left, top = round((wide - 28) / 2), round((high - 28) / 2)
    resized = image.convert("RGB").resize((wide, high), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((left, top, left + 28, top + 28)))
    assert 1 >= np.abs(expected.transpose(2, 0, 1).astype(int) - sample.numpy()).max()


class Mean(torch.nn.Module):
    """uint8 [B, 3, H, W] to two logits: their mean, and what is left of 255."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        mean = pixels.float().mean((1, 2, 3))
        return torch.stack([mean, 255 - mean], 1)


@pytest.fixture
def folded(shipped: Open, tmp_path: Path) -> Any:
    """A classifier whose graph normalises."""
    (tmp_path / "checkpoint").mkdir()
    settings = json.loads((MODELS / "vit_tiny" / "preprocessor_config.json").read_text())
    (tmp_path / "checkpoint" / "preprocessor_config.json").write_text(json.dumps({**settings, "folded": True}))
    (tmp_path / "checkpoint" / "config.json").write_text("{}")
    return shipped("image-classification", tmp_path / "checkpoint", Mean())


def test_a_graph_that_normalises_gets_whole_numbers_of_the_same_image(folded: Any, photo: Photo, encoded: Encoded) -> None:
    image = photo(200, 100)

    sample = folded.sample({"body": encoded(image, "PNG")})

    assert ((3, 32, 32), torch.uint8) == (sample.shape, sample.dtype)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert 1 >= np.abs(expected.astype(int) - sample.numpy()).max()


def test_a_client_may_send_raw_pixels_to_such_a_graph(
    folded: Any, ask: Ask, photo: Photo, encoded: Encoded, npy: Callable[[Any], bytes]
) -> None:
    image = photo(32, 32)  # as large as the model's input: nothing is resized
    raw = npy(np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1)))

    answers, context = ask(folded, encoded(image, "PNG"), raw, npy(np.zeros((3, 32, 32), "<f4")))

    assert answers[0] == answers[1]
    assert {2: (400, "Bad Request")} == context.statuses
    assert "expected a JPEG, PNG or WebP image, got Tensor" == answers[2]["message"]


def test_raw_pixels_are_refused_where_the_graph_takes_normalised_ones(
    shipped: Open, ask: Ask, npy: Callable[[Any], bytes]
) -> None:
    instance = shipped("image-classification", MODELS / "vit_tiny", Mean())

    answers, _ = ask(instance, npy(np.zeros((3, 32, 32), "u1")))

    assert (400, "expected a JPEG, PNG or WebP image, got Tensor") == (answers[0]["code"], answers[0]["message"])


@pytest.mark.parametrize("body", [b'<svg xmlns="http://www.w3.org/2000/svg"/>', b"\n<?xml version='1.0'?><svg/>", b"GIF89a"])
def test_pictures_of_other_formats_are_said_to_be_unsupported(shipped: Open, ask: Ask, body: bytes) -> None:
    instance = shipped("image-classification", MODELS / "vit_tiny", Mean())

    answers, context = ask(instance, body)

    assert {0: (415, "Unsupported Media Type")} == context.statuses
    assert "UnsupportedMediaType" == answers[0]["type"]
