"""Whichever form a checkpoint has, the same numbers come out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from marline.handler import FakeContext

Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]
HANDLER = """
import torch
from base_handler import handler_factory

def init_function():
    layer = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(layer.weight, 9.0)
    torch.nn.init.zeros_(layer.bias)
    return layer

handler = handler_factory(init_function)
"""
WEIGHTS = {"weight": torch.tensor([[2.0, 3.0]]), "bias": torch.tensor([1.0])}


def trained() -> torch.nn.Module:
    layer = torch.nn.Linear(2, 1)
    layer.load_state_dict(WEIGHTS)
    return layer


CHECKPOINTS: dict[str, tuple[str | None, Callable[[Path], Any], float]] = {
    "TorchScript": ("model.pt", lambda file: torch.jit.script(trained()).save(str(file)), 9.0),  # type: ignore[no-untyped-call]
    "TorchScript as .pth": ("model.pth", lambda file: torch.jit.script(trained()).save(str(file)), 9.0),  # type: ignore[no-untyped-call]
    "state dict": ("model.pth", lambda file: torch.save(WEIGHTS, file), 9.0),
    "state dict as .pt": ("model.pt", lambda file: torch.save(WEIGHTS, file), 9.0),
    "state dict of old": (
        "model.bin",
        lambda file: torch.save(WEIGHTS, file, _use_new_zipfile_serialization=False),
        9.0,
    ),
    "safetensors": ("model.safetensors", lambda file: save_file(WEIGHTS, file), 9.0),
    "an empty file": ("model.pt", Path.touch, 27.0),
    "an empty safetensors": ("model.safetensors", Path.touch, 27.0),
    "a file that is not there": ("model.pt", lambda _: None, 27.0),
    "none": (None, lambda _: None, 27.0),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_weights_are_found_in_every_form(own: Open, ask: Ask, tmp_path: Path, name: str) -> None:
    file, write, expected = CHECKPOINTS[name]
    instance = own(HANDLER)
    write(tmp_path / "archive" / (file or "none"))
    instance.initialize(FakeContext(tmp_path / "archive", file))

    assert [{"output": [expected]}] == ask(instance, [1.0, 2.0])[0]
    assert not instance.model.training


def test_a_damaged_checkpoint_ends_the_deployment(own: Open, tmp_path: Path) -> None:
    instance = own(HANDLER)
    (tmp_path / "archive" / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      " * 3)

    with pytest.raises(Exception, match=r"while deserializing|[Hh]eader"):
        instance.initialize(FakeContext(tmp_path / "archive", "model.safetensors"))


def test_weights_that_are_another_models_are_named(own: Open, tmp_path: Path) -> None:
    instance = own(HANDLER)
    save_file({"weight": WEIGHTS["weight"], "extra": torch.ones(1)}, tmp_path / "archive" / "model.safetensors")

    with pytest.raises(RuntimeError, match=r'(?s)Missing key.*"bias".*Unexpected key.*"extra"'):
        instance.initialize(FakeContext(tmp_path / "archive", "model.safetensors"))
