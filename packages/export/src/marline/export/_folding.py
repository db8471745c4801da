"""Moves the scaling and normalising of pixels from the handler into the graph, which then takes uint8."""

# The compiler reads comments inside forward, so what our own tools need to know of it stands here.
# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN202

import json
from pathlib import Path

import torch
from torch import nn

from marline.core import RequestError
from marline.handler import TASKS

SETTINGS = "preprocessor_config.json"


class Pixels(nn.Module):
    """uint8 [B, 3, H, W] to what the model takes: (x * scale - mean) / std, as its image processor does."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: nn.Module, scale: float, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.model = model
        self.scale = scale
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, pixels: torch.Tensor):
        """The model's answer to raw pixels."""
        return self.model(((pixels.float() * self.scale - self.mean) / self.std).to(self.mean.dtype))


def fold(module: nn.Module, handler: Path, folder: Path) -> nn.Module:
    """The module that takes raw pixels; the settings in `folder` tell the handler so. RequestError where another prepares."""
    if handler not in {TASKS[name] for name in TASKS if name.startswith("image-")}:
        raise RequestError(f"export.fold=true goes with our own handlers of images, not with {handler}; leave it out")
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    if not settings.get("crop_size") and "width" not in settings["size"]:
        raise RequestError(
            "export.fold=true: this model pads images after normalising, which a graph of raw pixels cannot; leave it out"
        )
    normal = settings.get("do_normalize", True)
    mean, std = (settings["image_mean"], settings["image_std"]) if normal else ([0.0] * 3, [1.0] * 3)
    scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
    (folder / SETTINGS).write_text(json.dumps({**settings, "folded": True}, indent=2), encoding="utf-8")
    return Pixels(module, scale, mean, std).eval()
