"""Calls a transformers model the way a graph is called: tensors in order, tensors back by name."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn


class Positional(nn.Module):
    """`names` are the model's arguments in the order in which tensors are given; what comes back keeps its names."""

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
