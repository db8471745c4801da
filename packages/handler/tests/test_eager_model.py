"""An archive may carry the eager model's own code and weights in place of a graph."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from marline.handler import EAGER, FakeContext, adapted, load_base

Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]
MODELING = """
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from .beside import OFFSET


class TinyConfig(PretrainedConfig):
    model_type = "marline_eager"


class Tiny(PreTrainedModel):
    config_class = TinyConfig
    base_model_prefix = ""

    def __init__(self, config):
        super().__init__(config)
        self.inner = nn.Sequential(nn.Linear(2, 1), nn.Dropout(0.5))
        self.count = 3
        self.post_init()

    def forward(self, x, y=None, return_dict=False, use_cache=True):
        seen = self.inner(x) + OFFSET
        if not return_dict:
            return (seen,)
        cache = {"cache": seen} if use_cache else {}
        return {"one": seen, "two": seen if y is None else seen + y, "no tensor": 3, **cache}
"""
HANDLERS = {
    "no init function": "from base_handler import handler_factory\nhandler = handler_factory()\n",
    "an init function that would bring other weights": (
        "import torch\nfrom base_handler import handler_factory\nhandler = handler_factory(lambda: torch.nn.Linear(2, 1))\n"
    ),
}
PAIR = """
from base_handler import handler_factory
handler = handler_factory(None, lambda data: {"second": data[:2], "first": data[2:]})
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """What stage wrap leaves of the untracked model: Linear(2, 1) that computes 2 a - b + 1, and 100 more outside of it."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "modeling_tiny.py").write_text(MODELING)
    (folder / "beside.py").write_text("OFFSET = 100.0\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "marline_eager"}))
    weights = {"inner.0.weight": torch.tensor([[2.0, -1.0]]), "inner.0.bias": torch.tensor([1.0])}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def eager(own: Open, repository: Path, tmp_path: Path) -> Callable[..., Any]:
    """Open an archive of the repository, without a graph."""

    def make(handler: str, module: str | None, names: list[str] | None) -> Any:
        instance = own(handler)
        folder = tmp_path / "archive"
        shutil.copytree(repository, folder, dirs_exist_ok=True)
        told = {"base_class": "modeling_tiny.Tiny", "exported_module": module, "names": names}
        (folder / EAGER).write_text(json.dumps(told))
        instance.initialize(FakeContext(folder, "model.safetensors"))
        return instance

    return make


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_module_inside_answers_with_the_weights_of_the_archive(eager: Callable[..., Any], ask: Ask, handler: str) -> None:
    instance = eager(HANDLERS[handler], "inner", None)

    assert [{"output": [1.0]}, {"output": [7.0]}] == ask(instance, [1, 2], [5, 4])[0]
    assert not instance.model.training


def test_a_model_of_transformers_is_called_by_name_and_its_tensors_keep_theirs(eager: Callable[..., Any], ask: Ask) -> None:
    instance = eager(PAIR, None, ["y", "x"])

    answers, _ = ask(instance, [1000, 2000, 1, 2], [0, 0, 5, 4])

    assert [{"one": [101.0], "two": [1101.0, 2101.0]}, {"one": [107.0], "two": [107.0, 107.0]}] == [
        answer["output"] for answer in answers
    ]


def test_the_model_is_float32_in_eval_mode_and_leaves_no_files(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = sorted(repository.iterdir())

    base: Any = load_base(repository, "modeling_tiny.Tiny", None)

    assert ({torch.float32}, False) == ({weight.dtype for weight in base.parameters()}, base.training)
    assert before == sorted(repository.iterdir())
    assert not sys.dont_write_bytecode


def test_two_repositories_of_the_same_names_are_two_models(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "other")
    (tmp_path / "other" / "beside.py").write_text("OFFSET = -100.0\n")

    both = [adapted(load_base(folder, "modeling_tiny.Tiny", None), ["x"]) for folder in (repository, tmp_path / "other")]

    assert [101.0, -99.0] == [model(torch.tensor([[1.0, 2.0]]))["one"].item() for model in both]


def test_an_attribute_that_is_no_module_is_refused(repository: Path) -> None:
    with pytest.raises(TypeError, match=r"modeling_tiny\.Tiny\.count in .* is no torch module"):
        load_base(repository, "modeling_tiny.Tiny", "count")
