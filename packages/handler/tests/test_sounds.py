"""Sounds become what the model's own feature extractor makes of them; what is heard comes back in words and seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from marline.handler import FakeContext

hf: Any = transformers
Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]
Wav = Callable[..., bytes]
WAV2VEC2 = Path(__file__).parents[3] / "models" / "wav2vec2_tiny"
LENGTH = 64_000  # four seconds


def noise(length: int) -> Any:
    return np.random.default_rng(0).normal(300, 3000, length).round().astype("<i2")


@pytest.mark.parametrize("length", [1, 100, LENGTH, LENGTH + 1, 90_000])
def test_sounds_are_normalised_as_the_models_own_extractor_does(shipped: Open, wav: Wav, length: int) -> None:
    extractor = hf.AutoFeatureExtractor.from_pretrained(WAV2VEC2, local_files_only=True)

    sample = shipped("audio-classification", WAV2VEC2).sample({"body": wav(noise(length))})

    heard = (noise(length)[:LENGTH] / 32768).astype("float32")
    expected = extractor(heard, sampling_rate=16_000, return_tensors="pt")["input_values"][0]
    assert ((LENGTH,), torch.float32) == (sample.shape, sample.dtype)
    assert torch.allclose(expected, sample[:length], atol=1e-5)
    assert not sample[length:].any()  # silence, also to a model that is given no mask


class Loudness(torch.nn.Module):
    """Sounds [B, n] to three logits: the number of samples above 0, below 0 and at 0."""

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        return torch.stack([(sound > 0).sum(1), (sound < 0).sum(1), (sound == 0).sum(1)], 1).float()


@pytest.fixture(params=["audio-classification", "voice-activity-detection"])
def listening(request: pytest.FixtureRequest, shipped: Open, tmp_path: Path) -> Any:
    """Either handler of sounds, without a processor: 16 kHz, not normalised."""
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps({"id2label": {"0": "up", "1": "down", "2": "silence"}}))
    return shipped(request.param, tmp_path / "checkpoint", Loudness())


def test_what_is_no_sound_of_the_models_rate_is_refused_alone(listening: Any, ask: Ask, wav: Wav) -> None:
    answers, context = ask(listening, wav([1, 2]), b"text", wav([1, 2], rate=8000), [0.5, 0.5], wav([1])[:44])

    assert {1: 400, 2: 400, 3: 400, 4: 400} == {index: code for index, (code, _) in context.statuses.items()}
    assert [
        "expected a WAV file, got str",
        "the sound has 8000 samples a second; 16000 are expected",
        "expected a WAV file, got Tensor",
    ] == [answer["message"] for answer in answers[1:4]]
    assert "output" in answers[0]


@pytest.mark.parametrize("listening", ["audio-classification"], indirect=True)
def test_a_sound_gets_the_labels_of_what_is_heard_most(listening: Any, ask: Ask, wav: Wav) -> None:
    answers, _ = ask(listening, wav([-5] * 40_000), wav([5] * 40_000 + [-5] * 10_000))

    assert ["down", "up"] == [answer["output"][0]["label"] for answer in answers]
    assert ["down", "silence", "up"] == [one["label"] for one in answers[0]["output"]]


@pytest.mark.parametrize(
    ("probabilities", "stretches"),
    [
        ([0.1, 0.9, 0.8, 0.2, 0.7, 0.1, 0.1, 0.1], [[0.5, 1.5], [2.0, 2.5]]),
        ([0.0] * 8, []),
        ([1.0] * 8, [[0.0, 4.0]]),
        ([0.5, 0.51], [[2.0, 4.0]]),
        ([0.9] * 125, [[0.0, 4.0]]),
    ],
    ids=["two stretches", "silence", "speech throughout", "just over a half", "pieces of 32 ms"],
)
@pytest.mark.parametrize("listening", ["voice-activity-detection"], indirect=True)
def test_speech_is_told_in_seconds(
    listening: Any, ask: Ask, wav: Wav, probabilities: list[float], stretches: list[list[float]]
) -> None:
    listening.model = lambda sounds: torch.tensor([probabilities] * len(sounds))

    answers, _ = ask(listening, wav([0] * 9))

    assert {"speech_s": stretches, "probability": pytest.approx(max(probabilities))} == answers[0]["output"]
