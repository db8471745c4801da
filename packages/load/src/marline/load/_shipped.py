"""The samples we ship for each kind of input: photographs and prose out of installed packages, and synthetic sounds.

scikit-image and scikit-learn are located, not imported: only their files are wanted.
"""

import json
import re
import wave
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from marline.load._source import Expects, Input

# Free to use and of different sizes, because decoding is part of what a server does:
# astronaut and rocket are in the public domain (NASA), chelsea and coffee are CC0 (scikit-image's docstrings say so).
PHOTOGRAPHS = {"astronaut.png": 384, "chelsea.png": 300, "coffee.png": 400, "rocket.jpg": 427}  # heights in pixels
PANNED = (180, 240)  # height and width of a video, cut out of a photograph
# The sentence that tokenizers are compared on, and the lengths of the texts beside it.
SENTENCE = "This is a long example input string containing special characters .$?-, numbers 2872 234 12 and words."
WORDS = (10, 25, 50, 90)
SECONDS = (0.5, 1.0, 2.0, 4.0)  # lengths of the sounds


def _images(folder: Path, _: Expects, __: int) -> None:
    """JPEG at quality 90, as a phone would send it."""
    for name in PHOTOGRAPHS:
        _photograph(name).save(folder / f"{Path(name).stem}.jpg", quality=90)


def _photograph(name: str) -> Image.Image:
    height = PHOTOGRAPHS[name]
    with Image.open(_package("skimage") / "data" / name) as image:
        return image.convert("RGB").resize((round(image.width * height / image.height), height), Image.Resampling.BICUBIC)


def _texts(folder: Path, expects: Expects, _: int) -> None:
    """English prose from scikit-learn's descriptions of its data sets (BSD-3-Clause), and the sentence."""
    prose = _paragraphs()
    chosen = [min(prose, key=lambda text: abs(len(text.split()) - words)) for words in WORDS]
    for number, text in enumerate([*chosen, SENTENCE]):
        if expects.question:
            asked = {"question": "What is this about?", "context": text}
            (folder / f"{number}.json").write_text(json.dumps(asked), encoding="utf-8")
        else:
            (folder / f"{number}.txt").write_text(_masked(text, expects.mask), encoding="utf-8")


def _paragraphs() -> list[str]:
    """Blocks that read as sentences: no tables, lists, headings or markup."""
    files = sorted((_package("sklearn") / "datasets" / "descr").glob("*.rst"))
    blocks = [" ".join(block.split()) for file in files for block in re.split(r"\n\s*\n", file.read_text(encoding="utf-8"))]
    return [block for block in blocks if re.fullmatch(r"[A-Z][\w ,;()'\"/.-]{40,}\.", block)]


def _masked(text: str, mask: str | None) -> str:
    words = text.split(" ")
    return text if mask is None else " ".join([*words[: len(words) // 2], mask, *words[len(words) // 2 + 1 :]])


def _sounds(folder: Path, expects: Expects, seed: int) -> None:
    """Synthetic: a gliding voice-like tone with overtones in syllables of a quarter second, over faint noise. Nobody speaks."""
    rate, random = expects.sampling_rate, np.random.default_rng(seed)
    for number, seconds in enumerate(SECONDS):
        time = np.arange(round(seconds * rate)) / rate
        pitch = 120 + 20 * number + 15 * np.sin(2 * np.pi * 0.7 * time)  # Hz, the range of speech
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        voice = sum(np.sin(overtone * phase) / overtone for overtone in range(1, 9))
        sound = 0.2 * voice * np.clip(np.sin(2 * np.pi * 2 * time), 0, 1) + 0.005 * random.standard_normal(len(time))
        with wave.open(str(folder / f"{number}.wav"), "wb") as file:
            file.setparams((1, 2, rate, 0, "NONE", ""))
            file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def _videos(folder: Path, expects: Expects, _: int) -> None:
    """uint8 [frames, height, width, 3]: a window that pans over a photograph."""
    height, width = PANNED
    for name in PHOTOGRAPHS:
        pixels = np.asarray(_photograph(name))
        steps = np.linspace(0, 1, expects.frames)
        corners = [(round(step * (pixels.shape[0] - height)), round(step * (pixels.shape[1] - width))) for step in steps]
        frames = np.stack([pixels[top : top + height, left : left + width] for top, left in corners])
        np.save(folder / f"{Path(name).stem}.npy", frames)


def _tensors(folder: Path, expects: Expects, seed: int) -> None:
    """float32, normally distributed."""
    random = np.random.default_rng(seed)
    assert expects.shape is not None, "asked for before"
    for number in range(4):
        np.save(folder / f"{number}.npy", random.standard_normal(expects.shape, dtype=np.float32))


def _package(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None, f"{name} is a declared dependency"
    assert spec.origin is not None, f"{name} is a package"
    return Path(spec.origin).parent


SHIPPED: dict[Input, Callable[[Path, Expects, int], None]] = {
    "image": _images,
    "text": _texts,
    "audio": _sounds,
    "video": _videos,
    "tensor": _tensors,
}
