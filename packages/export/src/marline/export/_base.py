"""Loads the untracked base model from the repository that stage wrap left."""

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from marline.core import StageError


def load_base(repository: Path, base_class: str, exported_module: str | None) -> nn.Module:
    """The plain module to export, in eval mode: the base class itself, or the attribute of it that is plain torch.

    The class is named (`modeling_x.XForImageClassification`), not looked up through auto_map: that would be the tracked one.
    Weights are read as float32, which is what a CPU computes.
    """
    module_name, _, class_name = base_class.rpartition(".")
    with _package(repository) as package:
        cls = getattr(importlib.import_module(f"{package}.{module_name}"), class_name)
        base = cls.from_pretrained(repository, local_files_only=True, dtype=torch.float32)
    module = getattr(base, exported_module) if exported_module else base
    if not isinstance(module, nn.Module):
        raise StageError(f"{base_class}.{exported_module} in {repository} is no torch module; make it again with fresh=wrap")
    return module.eval()


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
