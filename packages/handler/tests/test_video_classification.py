"""Videos become the frames that the model's own processor makes of them."""

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
Npy = Callable[[Any], bytes]
Open = Callable[..., Any]
Photo = Callable[[int, int], Image.Image]
VIDEOMAE = Path(__file__).parents[3] / "models" / "videomae_tiny"
PROCESSOR = "video_preprocessor_config.json"
SIZES = [(100, 133), (640, 427), (333, 77), (97, 131), (37, 51), (20, 20), (3, 100)]
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "larger than what is cut out, bicubic": {"size": {"shortest_edge": 41}, "resample": 3},
    "not normalised": {"do_normalize": False},
}


class Brightness(torch.nn.Module):
    """Videos [B, frames, 3, H, W] to five logits, the first the mean."""

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(video.mean((1, 2, 3, 4)).unsqueeze(1), (0, 4), value=0.25)


@pytest.mark.parametrize("change", CHANGES)
def test_frames_are_those_of_the_models_own_processor(
    shipped: Open, photo: Photo, npy: Npy, tmp_path: Path, change: str
) -> None:
    (tmp_path / "checkpoint").mkdir()
    told = json.loads((VIDEOMAE / PROCESSOR).read_text()) | CHANGES[change]
    (tmp_path / "checkpoint" / PROCESSOR).write_text(json.dumps(told))
    (tmp_path / "checkpoint" / "config.json").write_bytes((VIDEOMAE / "config.json").read_bytes())
    processor = hf.AutoVideoProcessor.from_pretrained(tmp_path / "checkpoint", local_files_only=True)
    instance = shipped("video-classification", tmp_path / "checkpoint")

    for size in SIZES:
        video = np.stack([np.asarray(photo(*size))] * 15 + [np.zeros((size[1], size[0], 3), "u1")])
        sample = instance.sample({"body": npy(video)})
        expected = processor([video], return_tensors="pt")["pixel_values"][0]
        assert (expected.shape, expected.dtype) == (sample.shape, sample.dtype)
        assert (expected - sample).abs().mean() <= 0.01 * expected.std()


@pytest.fixture
def watching(shipped: Open) -> Any:
    """The handler with the processor of videomae_tiny, and a module that sees how bright a video is."""
    return shipped("video-classification", VIDEOMAE, Brightness())


@pytest.mark.parametrize(("length", "chosen"), [(1, [0] * 16), (16, [*range(16)]), (31, [*range(0, 31, 2)])])
def test_frames_are_chosen_evenly(watching: Any, npy: Npy, length: int, chosen: list[int]) -> None:
    video = np.broadcast_to(np.arange(length, dtype="u1").reshape(-1, 1, 1, 1), (length, 32, 32, 3))

    sample = watching.sample({"body": npy(np.ascontiguousarray(video))})

    assert chosen == ((sample[:, 0, 0, 0] * 0.5 + 0.5) * 255).round().tolist()


def test_a_video_gets_its_labels(watching: Any, ask: Ask, npy: Npy) -> None:
    answers, _ = ask(watching, npy(np.full((4, 40, 50, 3), 255, "u1")), npy(np.zeros((4, 50, 40, 3), "u1")))

    assert ("LABEL_0", 0) == (answers[0]["output"][0]["label"], answers[0]["output"][0]["index"])
    assert 0 == answers[1]["output"][-1]["index"]
    assert [pytest.approx(1)] * 2 == [sum(one["probability"] for one in answer["output"]) for answer in answers]


@pytest.mark.parametrize(
    ("shape", "kind", "told"),
    [
        ((4, 8, 8, 3), "<f4", "expected an .npy file of uint8"),
        ((4, 8, 8), "u1", "expected an .npy file of uint8"),
        ((4, 3, 8, 8), "u1", "expected an .npy file of uint8"),
        ((1, 4, 8, 8, 3), "u1", "expected an .npy file of uint8"),
        ((0, 8, 8, 3), "u1", "a video of shape [0, 8, 8, 3] shows nothing"),
        ((4, 0, 8, 3), "u1", "a video of shape [4, 0, 8, 3] shows nothing"),
        ((1, 1, 1_000_000, 3), "u1", "frames of 1 x 1000000 are too narrow: they would be resized to 32 x 32000000"),
    ],
    ids=str,
)
def test_what_is_no_video_is_refused_alone(
    watching: Any, ask: Ask, npy: Npy, shape: tuple[int, ...], kind: str, told: str
) -> None:
    answers, context = ask(watching, npy(np.zeros(shape, kind)), npy(np.zeros((4, 40, 50, 3), "u1")), b"text")

    assert {0: 400, 2: 400} == {index: code for index, (code, _) in context.statuses.items()}
    assert answers[0]["message"].startswith(told)
    assert "output" in answers[1]
