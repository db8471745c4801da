"""Detectors of transformers and of torchvision answer alike: boxes in fractions of the image, best first."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from marline.handler import FakeContext, Pair, write_golden

hf: Any = transformers
Ask = Callable[..., tuple[list[Any], FakeContext]]
Encoded = Callable[..., bytes]
Open = Callable[..., Any]
DETR = Path(__file__).parents[3] / "models" / "detr_tiny"


class Bright(torch.nn.Module):
    """Finds in each image: its left half (label 2, as sure as it is red), its middle (0.5), and all of it (less)."""

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        found: list[dict[str, torch.Tensor]] = []
        for image in images:
            height, width = float(image.shape[1]), float(image.shape[2])
            places = [[0.0, 0.0, width / 2, height], [width / 4, height / 4, width / 2, height / 2], [0.0, 0.0, width, height]]
            scores = [float(image[0].mean()), 0.5 * float(image[1].mean()), 0.25 * float(image[2].mean())]
            order = torch.tensor(scores).argsort()  # any order: the handler sorts
            found.append(
                {
                    "boxes": torch.tensor(places)[order],
                    "labels": torch.tensor([2, 1, 0])[order],
                    "scores": torch.tensor(scores)[order],
                }
            )
        return found


@pytest.fixture
def of_torchvision(shipped: Open, encoded: Encoded, tmp_path: Path) -> Any:
    """The handler of a detector that brings its own preparation, warmed up with an image of a size of its own."""
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps({"id2label": {"0": "all", "1": "middle", "2": "left"}}))
    instance = shipped("object-detection", tmp_path / "checkpoint", Bright())
    golden = Pair("a", encoded(Image.new("RGB", (31, 17)), "PNG"), None)
    write_golden(tmp_path / "archive" / "golden.json", [golden])
    instance.initialize(FakeContext(tmp_path / "archive", "model.pt", batch_size=2))
    return instance


def test_images_of_different_sizes_share_a_batch(of_torchvision: Any, ask: Ask, encoded: Encoded) -> None:
    sizes, called = [], of_torchvision.model

    def counted(images: Any) -> Any:
        sizes.append([tuple(image.shape) for image in images])
        return called(images)

    of_torchvision.model = counted
    bodies = [encoded(Image.new("RGB", size, "white"), "PNG") for size in ((40, 20), (8, 64), (1, 1))]

    answers, context = ask(of_torchvision, *bodies)

    assert {} == context.statuses
    assert [[(3, 20, 40), (3, 64, 8), (3, 1, 1)]] == sizes
    left = {"label": "left", "index": 2, "score": 1.0, "box": [0.0, 0.0, 0.5, 1.0]}
    middle = {"label": "middle", "index": 1, "score": 0.5, "box": [0.25, 0.25, 0.5, 0.5]}
    assert [{"output": [left, middle]}] * 3 == answers


def test_the_best_box_is_told_however_unsure(of_torchvision: Any, ask: Ask, encoded: Encoded) -> None:
    answers, _ = ask(of_torchvision, encoded(Image.new("RGB", (6, 6), (51, 0, 0)), "PNG"))

    assert [("left", pytest.approx(0.2))] == [(one["label"], one["score"]) for one in answers[0]["output"]]


def test_an_image_in_which_nothing_is_found_has_no_boxes(of_torchvision: Any, ask: Ask, encoded: Encoded) -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
    of_torchvision.model = lambda images: [nothing] * len(images)

    assert [{"output": []}] == ask(of_torchvision, encoded(Image.new("RGB", (6, 6)), "PNG"))[0]


def test_what_is_no_image_is_refused_alone(of_torchvision: Any, ask: Ask, encoded: Encoded) -> None:
    answers, context = ask(of_torchvision, b"text", encoded(Image.new("RGB", (6, 6)), "PNG"), [[[1.0]]])

    assert {0: 400, 2: 400} == {index: code for index, (code, _) in context.statuses.items()}
    assert "expected a JPEG, PNG or WebP image, got str" == answers[0]["message"]
    assert "output" in answers[1]


def test_boxes_of_detr_are_those_of_its_own_processor(shipped: Open, ask: Ask, encoded: Encoded) -> None:
    instance = shipped("object-detection", DETR)
    processor = hf.AutoImageProcessor.from_pretrained(DETR, local_files_only=True)
    chance = torch.Generator().manual_seed(0)
    output = {"logits": 4 * torch.randn(1, 150, 5, generator=chance), "pred_boxes": torch.rand(1, 150, 4, generator=chance)}
    instance.model = lambda *_: output
    expected = processor.post_process_object_detection(SimpleNamespace(**output), threshold=0.5)[0]
    order = expected["scores"].argsort(descending=True)[:100]

    answers, _ = ask(instance, encoded(Image.new("RGB", (60, 30)), "JPEG"), b"text")

    found = answers[0]["output"]
    assert 50 < len(found) == len(order)
    assert expected["labels"][order].tolist() == [one["index"] for one in found]
    assert [f"LABEL_{one['index']}" for one in found] == [one["label"] for one in found]
    assert torch.allclose(expected["scores"][order], torch.tensor([one["score"] for one in found]))
    assert torch.allclose(expected["boxes"][order], torch.tensor([one["box"] for one in found]))
    assert "expected a JPEG, PNG or WebP image, got str" == answers[1]["message"]
