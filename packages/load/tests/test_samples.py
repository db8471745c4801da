"""Sample inputs of every kind: what we ship, and what the user gives in its place."""

import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from marline.core import LoadConfig, RequestError
from marline.load._samples import write_samples
from marline.load._source import Expects

Write = Callable[..., list[Path]]


@pytest.fixture
def write(tmp_path: Path, config: Callable[..., LoadConfig]) -> Write:
    """Samples in a folder of their own."""

    def make(expects: Expects, own: Path | None = None, seed: int = 0) -> list[Path]:
        told = config(source="python:model.py:init", samples=None if own is None else str(own), seed=seed)
        return write_samples(told, expects, tmp_path / f"sample{len([*tmp_path.iterdir()])}")

    return make


def test_shipped_texts_are_prose_of_different_lengths(write: Write) -> None:
    texts = [file.read_text() for file in write(Expects(input="text"))]

    lengths = [len(text.split()) for text in texts]
    assert 5 == len(set(lengths))
    assert min(lengths) < 15
    assert max(lengths) > 80
    assert all(text[0].isupper() and text.endswith(".") for text in texts)


def test_texts_with_a_question_are_requests(write: Write) -> None:
    files = write(Expects(input="text", question=True))

    assert [{"context", "question"}] * 5 == [set(json.loads(file.read_text())) for file in files]


def test_shipped_sounds_have_the_rate_the_model_expects(write: Write) -> None:
    seconds = []
    for file in write(Expects(input="audio", sampling_rate=8000)):
        with wave.open(str(file)) as sound:
            assert (1, 2, 8000) == (sound.getnchannels(), sound.getsampwidth(), sound.getframerate())
            seconds.append(sound.getnframes() / 8000)
            loud = np.frombuffer(sound.readframes(sound.getnframes()), dtype="<i2")
        assert 3000 < np.abs(loud).max() < 32767

    assert [0.5, 1.0, 2.0, 4.0] == seconds


def test_shipped_videos_move(write: Write) -> None:
    for file in write(Expects(input="video", frames=8)):
        frames = np.load(file)

        assert (np.uint8, (8, 180, 240, 3)) == (frames.dtype, frames.shape)
        assert not np.array_equal(frames[0], frames[-1])


def test_shipped_tensors_are_seeded(write: Write) -> None:
    expects = Expects(input="tensor", shape=(3, 5))
    one, again, other = ([np.load(file) for file in write(expects, seed=seed)] for seed in (1, 1, 2))

    assert [(np.float32, (3, 5))] * 4 == [(values.dtype, values.shape) for values in one]
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_tensors_of_unknown_shape_are_asked_about(write: Write) -> None:
    with pytest.raises(RequestError, match=r"takes is not known; give load\.samples=FOLDER .* or INPUT_SHAPE"):
        write(Expects(input="tensor"))


@pytest.mark.parametrize("kind", ["audio", "text", "video"])
def test_samples_are_the_same_every_time(write: Write, kind: Any) -> None:
    one, two = ([file.read_bytes() for file in write(Expects(input=kind))] for _ in range(2))

    assert one == two


def save(name: str, folder: Path) -> Path:
    """A good or bad sample by its name."""
    file = folder / name
    if name.endswith(".npy"):
        dtype, shape = {"video": ("uint8", (2, 4, 4, 3)), "tensor": ("float32", (2, 3))}.get(file.stem, ("float64", (2, 3)))
        np.save(file, np.zeros(shape, dtype))
    elif name.endswith(".png"):
        Image.new("RGB", (4, 4)).save(file)
    elif name.endswith(".wav"):
        with wave.open(str(file), "wb") as sound:
            sound.setparams((1, 2, 8000 if file.stem == "slow" else 16000, 0, "NONE", ""))
            sound.writeframes(b"\0\0" * 100)
    else:
        file.write_text({"good.txt": "words", "good.json": '{"a": 1}'}.get(name, " "))
    return file


GOOD = [("image", "a.png"), ("text", "good.txt"), ("audio", "a.wav"), ("video", "video.npy"), ("tensor", "tensor.npy")]


@pytest.mark.parametrize(("kind", "name"), [*GOOD, ("audio", "good.json"), ("tensor", "good.json")])
@pytest.mark.parametrize("alone", [True, False])
def test_own_samples_arrive_byte_for_byte(write: Write, tmp_path: Path, kind: Any, name: str, alone: bool) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "README.md").write_text("not a sample")
    file = save(name, tmp_path / "own")

    files = write(Expects(input=kind), own=file if alone else file.parent)

    assert [(name, file.read_bytes())] == [(each.name, each.read_bytes()) for each in files]


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("image", "bad.jpg", r"bad\.jpg from load\.samples is no image that this model takes: cannot identify image"),
        ("image", "good.txt", r"holds no image; expected files ending in \.jpeg, \.jpg, \.json, \.png, \.webp"),
        ("text", "bad.txt", "it is empty"),
        ("text", "bad.json", "is no text that this model takes: Expecting value"),
        ("audio", "slow.wav", r"channels, bits and Hz are \(1, 16, 8000\), expected \(1, 16, 16000\)"),
        ("video", "tensor.npy", r"it is float32 \[2, 3\], expected uint8 \[frames, height, width, 3\]"),
        ("tensor", "bad.npy", "it is float64, expected float32"),
    ],
)
def test_own_samples_that_the_model_does_not_take_are_refused(
    write: Write, tmp_path: Path, kind: Any, name: str, told: str
) -> None:
    (tmp_path / "own").mkdir()
    file = save(name, tmp_path / "own")

    with pytest.raises(RequestError, match=told):
        write(Expects(input=kind), own=file)


def test_a_tensor_of_another_shape_is_refused(write: Write, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"its shape is \(2, 3\), expected \(4,\)"):
        write(Expects(input="tensor", shape=(4,)), own=save("tensor.npy", tmp_path))
