"""Sample inputs: request bodies, one a file, shipped ones or the user's own."""

import json
import shutil
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from marline.core import LoadConfig, RequestError, located
from marline.load._shipped import SHIPPED
from marline.load._source import Expects, Input

ENDINGS: dict[Input, set[str]] = {
    "image": {".jpg", ".jpeg", ".png", ".webp"},
    "text": {".txt"},
    "audio": {".wav"},
    "video": {".npy"},
    "tensor": {".npy"},
    "any": set(),
}


def write_samples(config: LoadConfig, expects: Expects, folder: Path) -> list[Path]:
    """Put sample inputs into `folder` and return them in order; RequestError where one is not what the model takes."""
    files = [] if config.samples is None else _own(located(config.samples), expects)
    if config.samples is None and expects.input == "tensor" and expects.shape is None:
        raise RequestError(
            f"what {config.source} takes is not known; give load.samples=FOLDER with .npy files (float32, one input each), "
            "or INPUT_SHAPE = (...) in the Python file"
        )
    if config.samples is None and expects.input == "any":
        raise RequestError(
            f"what {config.source} takes is for its owner to say; give load.samples=FOLDER with one request body a file, or "
            "load.task=TASK where the shipped images, texts or sounds will do"
        )
    folder.mkdir()
    for file in files:
        shutil.copyfile(file, folder / file.name)
    if config.samples is None:
        SHIPPED[expects.input](folder, expects, config.seed)
    return sorted(folder.iterdir())


def _own(given: Path, expects: Expects) -> list[Path]:
    endings = sorted({*ENDINGS[expects.input], ".json"})  # .json: a request as it is sent
    files = sorted(given.iterdir()) if given.is_dir() else [given]
    if expects.input == "any":
        fitting = [file for file in files if file.is_file() and not file.name.startswith(".")]
        problem = "no file; expected one request body a file"
    else:
        fitting = [file for file in files if file.is_file() and file.suffix.lower() in endings]
        problem = f"no {expects.input}; expected files ending in {', '.join(endings)}"
    if not fitting:
        raise RequestError(f"load.samples={given} holds {problem}")
    for file in fitting:
        check = _json if file.suffix.lower() == ".json" else CHECKS[expects.input]
        try:
            problem = check(file, expects)
        except (OSError, ValueError, EOFError, SyntaxError, wave.Error) as error:
            problem = str(error) or type(error).__name__
        if problem:
            raise RequestError(f"{file} from load.samples is no {expects.input} that this model takes: {problem}")
    return fitting


def _json(file: Path, _: Expects) -> str:
    json.loads(file.read_bytes())
    return ""


def _image(file: Path, _: Expects) -> str:
    with Image.open(file) as image:
        image.load()
    return ""


def _any(_: Path, __: Expects) -> str:
    return ""  # whether the handler takes it is seen when it answers


def _text(file: Path, _: Expects) -> str:
    return "" if file.read_bytes().decode("utf-8").strip() else "it is empty"


def _audio(file: Path, expects: Expects) -> str:
    with wave.open(str(file)) as sound:
        got = (sound.getnchannels(), 8 * sound.getsampwidth(), sound.getframerate())
    wanted = (1, 16, expects.sampling_rate)
    return "" if got == wanted else f"channels, bits and Hz are {got}, expected {wanted}"


def _video(file: Path, _: Expects) -> str:
    frames = np.load(file, allow_pickle=False)
    fits = frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3] == 3
    return "" if fits else f"it is {frames.dtype} {list(frames.shape)}, expected uint8 [frames, height, width, 3]"


def _tensor(file: Path, expects: Expects) -> str:
    values = np.load(file, allow_pickle=False)
    if values.dtype != np.float32:
        return f"it is {values.dtype}, expected float32"
    return "" if expects.shape in {None, values.shape} else f"its shape is {values.shape}, expected {expects.shape}"


CHECKS: dict[Input, Callable[[Path, Expects], str]] = {
    "image": _image,
    "text": _text,
    "audio": _audio,
    "video": _video,
    "tensor": _tensor,
    "any": _any,
}
