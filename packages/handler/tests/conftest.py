"""Assembled archives, opened outside a server."""

import base64
import io
import json
import warnings
import wave
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from marline.handler import FakeContext, assemble, handler_of, opened

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves its version file open when it is first imported
    import ts  # noqa: F401

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "models" / "digits_cnn"
Open = Callable[..., Any]


@pytest.fixture(scope="session")
def digits_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an archive of digits_cnn unpacks to; its weights are a state dict."""
    folder = tmp_path_factory.mktemp("digits")
    assemble(DIGITS / "handler.py", folder, folder)
    torch.save(load_file(DIGITS / "model.safetensors"), folder / "model.pt")
    request = base64.b64encode((DIGITS / "samples" / "0_is_6.png").read_bytes()).decode()
    (folder / "golden.json").write_text(json.dumps({"pairs": [{"name": "six", "request": request, "answer": None}]}))
    return folder


@pytest.fixture(scope="module")
def digits(digits_folder: Path) -> Iterator[Any]:
    """An initialised handler of digits_cnn."""
    with opened(digits_folder, "handler") as instance:
        instance.initialize(FakeContext(digits_folder, "model.pt", batch_size=8))
        yield instance


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Open]:
    """Put a handler file of one's own into tmp_path/archive and open it, not yet initialised."""
    with ExitStack() as stack:

        def make(text: str) -> Any:
            (tmp_path / "source").mkdir()
            (tmp_path / "archive").mkdir(exist_ok=True)
            (tmp_path / "source" / "my_handler.py").write_text(text)
            assemble(tmp_path / "source" / "my_handler.py", tmp_path, tmp_path / "archive")
            return stack.enter_context(opened(tmp_path / "archive", "my_handler"))

        yield make


@pytest.fixture
def shipped(tmp_path: Path) -> Iterator[Open]:
    """Open the handler of a task with the files of a checkpoint: around a module as TorchScript, else not yet initialised."""
    with ExitStack() as stack:

        def make(task: str, checkpoint: Path, module: torch.nn.Module | None = None) -> Any:
            folder = tmp_path / "archive"
            folder.mkdir()
            handler = handler_of(ROOT, "any", task, None)
            assemble(handler, checkpoint, folder)
            instance = stack.enter_context(opened(folder, handler.stem))
            if module is not None:
                torch.jit.script(module).save(str(folder / "model.pt"))  # type: ignore[no-untyped-call]
                instance.initialize(FakeContext(folder, "model.pt"))
            return instance

        yield make


@pytest.fixture(scope="session")
def photo() -> Callable[[int, int], Image.Image]:
    """Make an image of a size, as soft as photographs are."""

    def make(width: int, height: int) -> Image.Image:
        soft = Image.effect_noise((12, 12), 90).resize((width, height), Image.Resampling.BICUBIC)
        return Image.merge("RGB", [soft, soft.transpose(Image.Transpose(0)), soft.point(lambda v: 255 - v)])

    return make


@pytest.fixture(scope="session")
def wav() -> Callable[..., bytes]:
    """Make a WAV file of whole numbers."""

    def make(samples: Any, rate: int = 16_000, channels: int = 1, width: int = 2) -> bytes:
        stream = io.BytesIO()
        with wave.open(stream, "wb") as file:
            file.setnchannels(channels)
            file.setsampwidth(width)
            file.setframerate(rate)
            file.writeframes(np.asarray(samples, {1: "u1", 2: "<i2", 4: "<i4"}[width]).tobytes())
        return stream.getvalue()

    return make


@pytest.fixture(scope="session")
def npy() -> Callable[[Any], bytes]:
    """Make an .npy file of an array, as NumPy does."""

    def make(array: Any) -> bytes:
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()

    return make


@pytest.fixture(scope="session")
def six() -> bytes:
    """The first sample image: a 6."""
    return (DIGITS / "samples" / "0_is_6.png").read_bytes()


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """Make an image into a file of one kind."""

    def make(image: Image.Image, kind: str, **how: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **how)
        return stream.getvalue()

    return make


@pytest.fixture(scope="session")
def ask() -> Callable[..., tuple[list[Any], FakeContext]]:
    """Send one batch; returns the parsed answers, and the context that kept their statuses."""

    def send(instance: Any, *bodies: Any) -> tuple[list[Any], FakeContext]:
        context = FakeContext(Path())
        answers = instance.handle([{"body": body} for body in bodies], context)
        return [json.loads(answer) for answer in answers], context

    return send
