"""A repository as stage wrap leaves it, of any model given as source, and stage export run on it."""

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from marline.core import ExportConfig, Manifest, read_config, seal
from marline.export import export

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves its version file open when it is first imported
    import ts  # noqa: F401

MODELING = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel


class TinyConfig(PretrainedConfig):
    model_type = "marline_tiny"


{net}


class TinyForImageClassification(PreTrainedModel):
    config_class = TinyConfig
    base_model_prefix = ""

    def __init__(self, config):
        super().__init__(config)
        self.model = Net()
        self.post_init()

    def forward(self, pixel_values):
        raise RuntimeError("the plain module inside is what is exported")
"""
HANDLER = '''
import torch
from base_handler import handler_factory

def preprocess(image):
    """The mean of a grey image, from -1 to 1: float32 [1]."""
    return torch.tensor([sum(image.tobytes()) / len(image.tobytes()) / 127.5 - 1])

handler = handler_factory(preprocess_function=preprocess)
'''
Export = Callable[..., Manifest]


@pytest.fixture(scope="session")
def export_config() -> Callable[..., ExportConfig]:
    """The default settings of an export, changed."""
    default = read_config(["model=digits_cnn"]).config.export.model_dump()
    return lambda **changed: ExportConfig.model_validate({**default, **changed})


@pytest.fixture(scope="session")
def quick(export_config: Callable[..., ExportConfig]) -> Callable[..., ExportConfig]:
    """Settings that leave out what is only measured, and the larger batches."""
    return lambda **changed: export_config(**{"fuse": False, "channels_last": False, "batch_sizes": (1, 2, 3), **changed})


@pytest.fixture
def run(tmp_path: Path, quick: Callable[..., ExportConfig]) -> Export:
    """Export a module, given as the source of a class Net over inputs float32 [B, 1] from -1 to 1."""

    def make(net: str, **changed: object) -> Manifest:
        repository = tmp_path / "run" / "wrap" / "repository"
        repository.mkdir(parents=True)
        (repository / "modeling_tiny.py").write_text(MODELING.format(net=net))
        (repository / "config.json").write_text(json.dumps({"model_type": "marline_tiny"}))
        save_file({"model.weight": torch.tensor([2.0])}, repository / "model.safetensors", metadata={"format": "pt"})
        (tmp_path / "run" / "load" / "sample").mkdir(parents=True)
        for grey in (100, 120, 200, 255):
            Image.new("L", (4, 4), grey).save(tmp_path / "run" / "load" / "sample" / f"{grey:03}.png")
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "handler.py").write_text(HANDLER)
        config = quick(**{"atol": 1e-5, "rtol": 1e-4, "batch_sizes": (1, 2, 7), **changed})
        facts = {"base_class": "modeling_tiny.TinyForImageClassification", "exported_module": "model"}
        loaded, wrapped = (
            seal(tmp_path / "run" / stage, model="tiny", config=config, inputs=[], facts=facts, started=time.monotonic())
            for stage in ("load", "wrap")
        )
        out = tmp_path / "run" / "export"
        out.mkdir()
        return export("tiny", config, loaded, wrapped, tmp_path / "source" / "handler.py", out)

    return make
