"""The served digits_cnn against the eager one, on every test image."""

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from marline.core import Manifest, import_file, read_config
from marline.deploy import Server, serving

pytestmark = pytest.mark.e2e

DIGITS = Path("models/digits_cnn")


def held_back() -> tuple[torch.Tensor, torch.Tensor]:
    """The images, uint8 [899, 8, 8], and labels that models/digits_cnn/training/train.py keeps for testing."""
    digits = load_digits()
    pixels = torch.tensor(digits.images * (255 / 16)).round().to(torch.uint8)
    _, images, _, labels = train_test_split(
        pixels, torch.tensor(digits.target), test_size=0.5, random_state=0, stratify=digits.target
    )
    return images, labels


def eager() -> torch.nn.Module:
    network: torch.nn.Module = import_file(DIGITS / "model.py").init_function()
    network.load_state_dict(load_file(DIGITS / "model.safetensors"))
    return network.eval()


def served(server: Server, images: torch.Tensor) -> list[int]:
    def ask(image: torch.Tensor) -> int:
        body = io.BytesIO()
        Image.fromarray(image.numpy()).save(body, "PNG")
        reply = server.client.predict("digits_cnn", body.getvalue(), "image/png")
        assert 200 == reply.status
        return int(json.loads(reply.body)["output"]["digit"])

    with ThreadPoolExecutor(8) as askers:
        return list(askers.map(ask, images))


def test_the_served_digits_are_those_of_the_eager_model_on_every_test_image(
    stage: Callable[[str], Manifest], tmp_path: Path
) -> None:
    images, labels = held_back()
    archived = stage("archive")
    with torch.inference_mode():
        expected = eager()(images.unsqueeze(1).float() / 255).argmax(1)
    with serving(read_config(["model=digits_cnn"]).config.deploy, tmp_path / "logs") as server:
        archive = archived.path(archived.facts["archive"])
        server.load(archive, "digits_cnn", batch_size=8, max_batch_delay_ms=5, workers=1)
        found = torch.tensor(served(server, images))

    accuracy = float((expected == labels).float().mean())
    print(f"accuracy {accuracy:.4f} on {len(images)} images")
    assert 899 == len(images)
    assert expected.tolist() == found.tolist()
    assert accuracy == float((found == labels).float().mean())
