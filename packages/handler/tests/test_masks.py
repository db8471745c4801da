"""Masks are answered as shares and boxes, not pixel by pixel."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from marline.handler import FakeContext

Ask = Callable[..., tuple[list[Any], FakeContext]]
Encoded = Callable[..., bytes]
Open = Callable[..., Any]
SAM = Path(__file__).parents[3] / "models" / "sam_tiny"


@pytest.fixture
def segmenting(shipped: Open, tmp_path: Path) -> Any:
    """The handler of segmentation, for three classes of which one has no label."""
    (tmp_path / "checkpoint").mkdir()
    settings = (SAM.parent / "vit_tiny" / "preprocessor_config.json").read_text()
    (tmp_path / "checkpoint" / "preprocessor_config.json").write_text(settings)
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps({"id2label": {"0": "sky", "2": "boat"}}))
    return shipped("image-segmentation", tmp_path / "checkpoint")


def scene() -> torch.Tensor:
    """Logits [3, 4, 8]: class 0 nearly everywhere, class 2 in two rows and three columns, class 1 nowhere the likeliest."""
    logits = torch.zeros(3, 4, 8)
    logits[0], logits[1] = 1, 0.5
    logits[2, 1:3, 4:7] = 2
    return logits


@pytest.mark.parametrize("how", ["plain", "out", "logits"])
def test_each_class_that_is_seen_gets_its_share_and_box(segmenting: Any, ask: Ask, encoded: Encoded, how: str) -> None:
    logits = scene().unsqueeze(0)
    segmenting.model = lambda _: logits if how == "plain" else {"aux": torch.zeros(1, 3), how: logits}

    answers, context = ask(segmenting, encoded(Image.new("RGB", (64, 32)), "PNG"), b"text")

    assert [
        {"label": "sky", "index": 0, "share": 26 / 32, "box": [0.0, 0.0, 1.0, 1.0]},
        {"label": "boat", "index": 2, "share": 6 / 32, "box": [0.5, 0.25, 0.875, 0.75]},
    ] == answers[0]["output"]
    assert {1: (400, "Bad Request")} == context.statuses


def test_a_class_without_a_label_is_told_by_its_number(segmenting: Any, ask: Ask, encoded: Encoded) -> None:
    segmenting.model = lambda _: scene().roll(1, 0).unsqueeze(0)

    assert ["1", "sky"] == [one["label"] for one in ask(segmenting, encoded(Image.new("RGB", (9, 9)), "PNG"))[0][0]["output"]]


def test_masks_come_with_scores_shares_and_boxes_best_first(shipped: Open, ask: Ask, encoded: Encoded) -> None:
    instance = shipped("mask-generation", SAM)
    masks = torch.full((1, 1, 3, 4, 4), -1.0)
    masks[0, 0, 1, 1:3, 2:] = 0.1  # a mask is where its logit is above 0, as SamImageProcessor.post_process_masks says
    masks[0, 0, 2] = 5
    instance.model = lambda _: {"pred_masks": masks, "iou_scores": torch.tensor([[[0.5, 0.25, 0.75]]])}

    answers, context = ask(instance, encoded(Image.new("RGB", (64, 32)), "PNG"), b"text")

    assert [
        {"score": 0.75, "share": 1.0, "box": [0.0, 0.0, 1.0, 1.0]},
        {"score": 0.5, "share": 0.0, "box": []},
        {"score": 0.25, "share": 0.25, "box": [0.5, 0.25, 1.0, 0.75]},
    ] == answers[0]["output"]
    assert {1: (400, "Bad Request")} == context.statuses
