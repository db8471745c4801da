"""Layers of the user's own in place of the model's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from marline.core import Component, Manifest, RequestError, WrapConfig
from marline.wrap import ComponentError, swap_components, wrap

Make = Callable[..., Manifest]
Configure = Callable[..., WrapConfig]


class Scaled(nn.Linear):
    """A linear layer that says how wide it is."""

    def __init__(self, in_features: int, out_features: int, bias: bool, width: int, note: str = "none") -> None:
        super().__init__(in_features, out_features, bias)
        self.width, self.note = width, note


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.width = 7
        self.inner = nn.Linear(3, 2, bias=False)


@pytest.fixture
def model() -> Any:
    return nn.Sequential(Block(), Block(), nn.Linear(2, 2)).half()


def test_arguments_are_found_in_the_layer_and_its_parents(model: Any) -> None:
    before = model[1].inner.weight.clone()

    assert ["0.inner", "1.inner"] == swap_components(model, "*.inner", Scaled)

    layer = model[1].inner
    assert (3, 2, None, 7, "none") == (layer.in_features, layer.out_features, layer.bias, layer.width, layer.note)
    assert torch.equal(before, layer.weight)  # half precision too


def test_told_arguments_come_first(model: Any) -> None:
    swap_components(model, "0.inner", Scaled, {"width": 1, "note": "told"})

    assert (1, "told") == (model[0].inner.width, model[0].inner.note)
    assert type(model[1].inner) is nn.Linear


def test_an_argument_that_is_nowhere_is_named(model: Any) -> None:
    with pytest.raises(ComponentError, match=r"Scaled needs 'width', which neither 2, its parents nor .*; give it in kwargs"):
        swap_components(model, "2", Scaled)


def test_an_argument_that_the_class_does_not_have_is_named(model: Any) -> None:
    with pytest.raises(ComponentError, match="Scaled has no argument depth; it has in_features"):
        swap_components(model, "2", Scaled, {"depth": 1})


def test_a_path_that_fits_nothing_gets_its_neighbours_names(model: Any) -> None:
    with pytest.raises(ComponentError, match=r"no layer of Sequential is named '\*.iner'; near it are \*.inner"):
        swap_components(model, "*.iner", Scaled)


def test_weights_that_do_not_go_in_are_named(model: Any) -> None:
    with pytest.raises(ComponentError, match=r"LayerNorm does not take the weights of 2: (?s:.*)size mismatch"):
        swap_components(model, "2", nn.LayerNorm, {"normalized_shape": 3})


def test_split_attention_takes_each_layers_window_and_the_vision_configuration(
    tiny_models: dict[str, Any], split: Component
) -> None:
    """The first layer attends within windows, the second everywhere; both configurations have a `hidden_size`."""
    torch.manual_seed(0)
    model = tiny_models["sam"]().eval()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
        before = model.get_image_embeddings(pixels)

    names = swap_components(model, split.path, _layer(split))

    with torch.no_grad():
        assert torch.allclose(before, model.get_image_embeddings(pixels), atol=1e-5)
    assert ["vision_encoder.layers.0.attn", "vision_encoder.layers.1.attn"] == names
    assert not [key for key in model.state_dict() if "qkv" in key]


def _layer(split: Component) -> type[nn.Module]:
    code: dict[str, Any] = {}
    file, _, name = split.layer.rpartition(":")
    exec(Path(file).read_text(), code)  # noqa: S102 - the project's own file
    found: type[nn.Module] = code[name]
    return found


def test_a_plain_module_gets_its_layers_too(loaded: Make, config: Configure, tmp_path: Path) -> None:
    file = tmp_path / "doubled.py"
    file.write_text(
        "from torch import nn\n\n\nclass Doubled(nn.Linear):\n"
        "    def forward(self, values):\n        return 2 * super().forward(values)\n"
    )
    component = Component(path="head", layer=f"{file}:Doubled")

    repository = wrap("tiny", config(components=(component,)), loaded(tmp_path), tmp_path / "wrap").path("repository")

    assert file.read_text() == (repository / "component_doubled.py").read_text()
    assert 'swap_components(self.model, "head", Doubled, {})' in (repository / "modeling_tiny.py").read_text()
    assert "Layers that were replaced: `head`" in (repository / "README.md").read_text()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("class Other: ...\n", "has no torch module class 'Layer'"),
        ("import numpy\n", "imports numpy; a layer's file is copied into the repository alone"),
        ("from .beside import x\n", "imports .beside; a layer's file"),
        ("class Layer(\n", "cannot be read as Python"),
        ("1 / 0\n", "fails when imported: ZeroDivisionError"),
    ],
)
def test_a_layers_file_must_stand_alone(loaded: Make, config: Configure, tmp_path: Path, code: str, reason: str) -> None:
    (tmp_path / "layer.py").write_text(code)
    component = Component(path="head", layer=f"{tmp_path}/layer.py:Layer")

    with pytest.raises(RequestError, match=r"wrap.components: .*layer.py") as refused:
        wrap("tiny", config(components=(component,)), loaded(tmp_path), tmp_path / "wrap")

    assert reason in str(refused.value)
    assert [] == list((tmp_path / "wrap").iterdir())


def test_a_path_that_fits_nothing_is_a_wrong_request(loaded: Make, config: Configure, tmp_path: Path) -> None:
    (tmp_path / "layer.py").write_text("from torch.nn import Linear as Layer\n")
    component = Component(path="tail", layer=f"{tmp_path}/layer.py:Layer")

    with pytest.raises(RequestError, match=r"wrap.components, tail: no layer of Tiny is named 'tail'"):
        wrap("tiny", config(components=(component,)), loaded(tmp_path), tmp_path / "wrap")
