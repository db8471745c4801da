"""TorchScript, timm, modules that take tensors, and which of the user's files decide a load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

import marline.load
from marline.core import LoadConfig, Manifest, RequestError, StageError
from marline.load import local_files

Run = Callable[..., Manifest]
TIMM: Any = timm  # partly untyped


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small TorchScript file."""
    file = tmp_path_factory.mktemp("scripted") / "model.pt"
    torch.jit.script(nn.Sequential(nn.Linear(3, 2), nn.ReLU())).save(file)  # type: ignore[no-untyped-call]
    return file


def test_torchscript_passes_through_byte_for_byte(run: Run, scripted: Path) -> None:
    manifest = run(source=f"torchscript:{scripted}", task="voice-activity-detection")

    assert scripted.read_bytes() == manifest.path("checkpoint/model.pt").read_bytes()
    assert ("torchscript", "audio", 8) == tuple(manifest.facts[key] for key in ("kind", "input", "parameters"))
    told = {"source": f"torchscript:{scripted}", "task": "voice-activity-detection"}
    assert told == json.loads(manifest.path("checkpoint/config.json").read_text())


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, r"does not say what it answers; set load\.task=TASK"),
        ({"task": "audio-classification", "weights": "random"}, r"has its weights inside; leave out weights, rename and init"),
        ({"task": "audio-classification", "device_map": "auto"}, r"load\.device_map has an effect on Hugging Face models only"),
        ({"source": "torchscript:no/such.pt"}, r"there is no file no/such\.pt"),
    ],
)
def test_torchscript_refuses_what_it_cannot_do(run: Run, scripted: Path, told: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        run(**{"source": f"torchscript:{scripted}", **told})


def test_a_damaged_torchscript_file_is_named(run: Run, scripted: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes(scripted.read_bytes()[:-200])

    with pytest.raises(StageError, match=r"bad\.pt cannot be read as TorchScript"):
        run(source=f"torchscript:{tmp_path / 'bad.pt'}", task="audio-classification")


def test_a_module_may_take_tensors_of_a_shape_it_names(run: Run, tmp_path: Path) -> None:
    code = "from torch import nn\n\nINPUT_SHAPE = (3,)\n\n\ndef init():\n    return nn.Linear(3, 2)\n"
    (tmp_path / "model.py").write_text(code)

    manifest = run(source=f"python:{tmp_path / 'model.py'}:init", task="feature-extraction")

    assert ("tensor", "feature-extraction") == (manifest.facts["input"], manifest.facts["task"])
    assert (3,) == np.load(manifest.path("sample/0.npy")).shape


def test_a_model_of_timm_comes_with_its_transform(run: Run) -> None:
    manifest = run(source="timm:resnet10t", weights="random")

    told = json.loads(manifest.path("checkpoint/preprocessor_config.json").read_text())
    data = TIMM.data.resolve_model_data_config(TIMM.create_model("resnet10t"))
    assert list(data["mean"]) == told["image_mean"]
    assert {"height": data["input_size"][1], "width": data["input_size"][2]} == told["crop_size"]
    assert ("module", "image-classification", "image") == tuple(manifest.facts[key] for key in ("kind", "task", "input"))
    assert "tench" in json.loads(manifest.path("checkpoint/config.json").read_text())["id2label"]["0"]
    with pytest.raises(RequestError, match=r"timm:resnt10t is not a model of timm; did you mean timm:resn"):
        run(source="timm:resnt10t")


@pytest.mark.parametrize(
    ("told", "files"),
    [
        ({"source": "torchvision:resnet18"}, []),
        ({"source": "hf:org/name"}, []),
        ({"source": "./models/gpt2_tiny"}, ["models/gpt2_tiny"]),
        ({"source": "python:models/a/model.py:init"}, ["models/a/model.py"]),
        ({"source": "torchscript:a.pt"}, ["a.pt"]),
    ],
)
def test_local_files_are_those_the_user_can_change(
    config: Callable[..., LoadConfig], told: dict[str, str], files: list[str]
) -> None:
    assert [Path(file) for file in files] == local_files(config(**told))


def test_weights_and_samples_are_local_files_too(config: Callable[..., LoadConfig], tmp_path: Path) -> None:
    (tmp_path / "own.safetensors").touch()
    told = {"source": "timm:resnet10t", "weights": str(tmp_path / "own.safetensors"), "samples": str(tmp_path)}

    assert [tmp_path / "own.safetensors", tmp_path] == local_files(config(**told))


def test_a_package_is_located(config: Callable[..., LoadConfig]) -> None:
    (folder,) = local_files(config(source="package:sklearn/datasets/descr"))

    assert (folder / "iris.rst").is_file()


def test_public_names() -> None:
    exposed = {name for name in vars(marline.load) if not name.startswith("_")} - {"Any", "TYPE_CHECKING"}

    assert set(marline.load.__all__) == exposed | {"load"}  # which comes when it is asked for
    assert callable(marline.load.load)
