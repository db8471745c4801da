"""The committed weights of models/digits_cnn, asked as a client would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from marline.handler import FakeContext

Ask = Callable[..., tuple[list[Any], FakeContext]]
SAMPLES = sorted((Path(__file__).parents[3] / "models" / "digits_cnn" / "samples").iterdir())


def test_the_samples_are_the_digits_their_names_say(digits: Any, ask: Ask) -> None:
    answers, _ = ask(digits, *[file.read_bytes() for file in SAMPLES])

    assert [int(file.stem.rpartition("_is_")[2]) for file in SAMPLES] == [answer["output"]["digit"] for answer in answers]
    assert 8 == len(SAMPLES)


def test_the_half_it_was_not_trained_on_is_read_right(digits: Any, ask: Ask, encoded: Callable[..., bytes]) -> None:
    data = load_digits()
    pixels = torch.tensor(data.images * (255 / 16)).round().to(torch.uint8)
    _, test, _, labels = train_test_split(pixels, data.target, test_size=0.5, random_state=0, stratify=data.target)

    answers, _ = ask(digits, *[encoded(Image.fromarray(image.numpy()), "PNG") for image in test])

    right = sum(answer["output"]["digit"] == label for answer, label in zip(answers, labels, strict=True))
    assert 0.98 <= right / len(test)
    assert 899 == len(test)
