"""Loads the eager model of a repository: for its export, and inside an archive that carries no graph.

The class is named (`modeling_x.XForImageClassification`), not looked up through auto_map: that would be the tracked one.
"""

import importlib
import inspect
import json
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

EAGER = "eager.json"  # in an archive: base_class, exported_module, names


def load_base(repository: Path, base_class: str, exported_module: str | None) -> nn.Module:
    """The plain module, in eval mode and float32: the base class itself, or the attribute of it that is plain torch."""
    module_name, _, class_name = base_class.rpartition(".")
    with _package(repository) as package:
        cls = getattr(importlib.import_module(f"{package}.{module_name}"), class_name)
        base = cls.from_pretrained(repository, local_files_only=True, dtype=torch.float32)
    module = getattr(base, exported_module) if exported_module else base
    if not isinstance(module, nn.Module):
        raise TypeError(f"{base_class}.{exported_module} in {repository} is no torch module")
    return module.eval()


def load_eager(folder: Path) -> nn.Module | None:
    """The model that `eager.json` in an unpacked archive describes; None where there is no such file."""
    file = folder / EAGER
    if not file.is_file():
        return None
    told = json.loads(file.read_text(encoding="utf-8"))
    return adapted(load_base(folder, told["base_class"], told["exported_module"]), told["names"])


def adapted(module: nn.Module, names: Sequence[str] | None) -> nn.Module:
    """A module that is called the way a graph is: tensors in order. `names` are a transformers model's arguments."""
    if type(module).__module__.startswith("torchvision.models.detection."):
        return Detector(module).eval()
    return module if names is None else Positional(module, names).eval()


class Positional(nn.Module):
    """Calls a transformers model with tensors in the order of `names`; what comes back keeps its names."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)
        known = inspect.signature(model.forward).parameters
        fixed = {"return_dict": True, "use_cache": False}  # a cache is no tensor, and one forward pass needs none
        self.fixed = {key: value for key, value in fixed.items() if key in known}

    def forward(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        """The tensors among the model's outputs, by name."""
        output: Mapping[str, Any] = self.model(**dict(zip(self.names, tensors, strict=True)), **self.fixed)
        return {name: value for name, value in output.items() if isinstance(value, torch.Tensor)}


class Detector(nn.Module):
    """Calls a detector of torchvision, which answers with detections, but with (losses, detections) once it is scripted."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """For each image, float32 [3, height, width] of any size: boxes [N, 4], labels [N] and scores [N]."""
        output = self.model(images)
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return output[1]  # type: ignore[no-any-return]
        return output  # type: ignore[no-any-return]


@contextmanager
def _package(repository: Path) -> Iterator[str]:
    """The repository's folder as a package of its own.

    Transformers' way copies the code to a cache that processes share and does not write atomically: of 240 cold loads by four
    processes at once, one failed. This needs no copy. The name is unique, as TorchScript remembers classes by theirs.
    """
    package = types.ModuleType(f"repository_{abs(hash(str(repository))):x}")
    package.__path__ = [str(repository)]
    sys.modules[package.__name__] = package
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the repository is a finished stage's output
    try:
        yield package.__name__
    finally:
        sys.dont_write_bytecode = before
