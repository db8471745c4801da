import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from marline.core import Manifest, read_config, read_manifest
from marline.deploy import Server, serving

pytestmark = pytest.mark.e2e

DIGITS = Path("models/digits_cnn")


@pytest.mark.parametrize("model", ["resnet50", "mobilenet_v3_large", "efficientnet_lite0", "minilm", "vit_tiny"])
def test_a_model_is_deployed_and_its_golden_pairs_are_equal_over_http(model: str, place: Any) -> None:
    ran = place.run("pipelines", f"model={model}", "until=deploy")
    print(f"{model} took {ran.seconds:.0f} s")

    assert (0, "") == (ran.code, ran.err)
    facts = read_manifest(ran.run / "deploy").facts
    assert facts["golden"] > 0
    assert (1, 1, 100) == (facts["workers"], facts["batch_size"], facts["max_batch_delay_ms"])


def test_a_photograph_of_a_cat_is_called_a_cat_and_alike_texts_are_near_each_other(place: Any, tmp_path: Path) -> None:
    """The two models with real weights from packages, both on one server; their stages are cached from the test above."""
    texts = [b"The cat sleeps on the sofa.", b"A kitten is napping on the couch.", b"Interest rates rose by half a point."]
    with serving(read_config(["model=minilm"]).config.deploy, tmp_path / "logs") as server:
        for model in ("efficientnet_lite0", "minilm"):
            archived = read_manifest(place.run("pipelines", f"model={model}", "until=archive").run / "archive")
            archive = archived.path(archived.facts["archive"])
            server.load(archive, model, batch_size=4, max_batch_delay_ms=50, workers=1)
        photograph = next(place.artifacts.glob("efficientnet_lite0/*/load/sample/chelsea.jpg")).read_bytes()
        labels = output(server, "efficientnet_lite0", photograph, "image/jpeg")
        with ThreadPoolExecutor(len(texts)) as askers:
            answers = list(askers.map(lambda text: output(server, "minilm", text, "text/plain"), texts))

    assert "cat" in labels[0]["label"]
    cat_sleeps, kitten_naps, rates_rose = (torch.tensor(answer["embedding"]) for answer in answers)
    assert cat_sleeps @ kitten_naps > 0.5
    assert cat_sleeps @ rates_rose < 0.2


def output(server: Server, model: str, body: bytes, kind: str) -> Any:
    reply = server.client.predict(model, body, kind)
    assert 200 == reply.status
    return json.loads(reply.body)["output"]


def held_back() -> tuple[torch.Tensor, torch.Tensor]:
    """The images, uint8 [899, 8, 8], and labels that models/digits_cnn/training/train.py keeps for testing."""
    digits = load_digits()
    pixels = torch.tensor(digits.images * (255 / 16)).round().to(torch.uint8)
    _, images, _, labels = train_test_split(
        pixels, torch.tensor(digits.target), test_size=0.5, random_state=0, stratify=digits.target
    )
    return images, labels


def eager() -> torch.nn.Module:
    spec = spec_from_file_location("digits_model", DIGITS / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    network: torch.nn.Module = module.init_function()
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
