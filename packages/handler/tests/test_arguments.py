"""What `handler_factory` takes beside functions, and which function gets it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.handler import FakeContext

Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]

EVERY = """
from pathlib import Path

import torch
from base_handler import handler_factory

class Net(torch.nn.Module):
    def __init__(self, collate_function, factor):
        super().__init__()
        self.told, self.factor = collate_function, factor
    def forward(self, numbers):
        return self.factor * numbers

Net.__module__ = "elsewhere"

def preprocess(data, offset):
    return data + offset

def postprocess(output, unit, places=0):
    return f"{output.item():.{places}f} {unit}"

def write(name, text):
    Path(name).write_text(text)

handler = handler_factory(
    Net, preprocess, postprocess, write, write, "positional",
    init_kwargs={"factor": 3.0}, preprocess_kwargs={"offset": 1}, postprocess_kwargs={"unit": "m", "places": 1},
    install_kwargs={"name": "installed", "text": "i"}, unpack_kwargs={"name": "unpacked", "text": "u"}, factor=2.0,
)
del Net
"""
POST = """
import torch
from base_handler import handler_factory
{}
handler = handler_factory(torch.nn.Identity, postprocess_function={})
"""


def test_each_function_gets_its_own_arguments_and_init_kwargs_win(own: Open, ask: Ask, tmp_path: Path) -> None:
    instance = own(EVERY)
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, _ = ask(instance, [1.0], [2.0])

    assert ["6.0 m", "9.0 m"] == [answer["output"] for answer in answers]
    assert "positional" == instance.model.told
    assert ("i", "u") == tuple((tmp_path / "archive" / name).read_text() for name in ("installed", "unpacked"))


def test_a_name_of_the_factorys_own_reaches_the_init_function_through_init_kwargs(own: Open, tmp_path: Path) -> None:
    text = EVERY.replace('"positional",', "").replace('init_kwargs={"', 'init_kwargs={"collate_function": "mine", "')
    instance = own(text)
    instance.initialize(FakeContext(tmp_path / "archive"))

    assert "mine" == instance.model.told


@pytest.mark.parametrize(
    ("defined", "function", "answer"),
    [
        ("def post(output, scale=10): return scale * output.item()", "post", 20.0),
        ("def post(output, *, scale=10): return scale * output.item()", "post", 20.0),
        ("def post(output, *rest): return len(rest)", "post", 0),
        ("def post(output, sample): return [output.item(), sample.item()]", "post", [2.0, 2.0]),
        ("def post(output, sample, scale=10): return scale * sample.item()", "post", 20.0),
        ("def post(output): return {'a': output.numpy(), 'b': [output.numpy()[0]]}", "post", {"a": [2.0], "b": [2.0]}),
        ("", "str", "tensor([2.])"),
        ("", "bool", True),
        ("", "torch.Tensor.item", 2.0),
        ("class Post:\n    def __call__(self, output, sample): return sample.item()\n    handle = __call__", "Post()", 2.0),
    ],
)
def test_a_postprocess_gets_the_sample_where_it_needs_two_arguments_only(
    own: Open, ask: Ask, tmp_path: Path, defined: str, function: str, answer: Any
) -> None:
    hidden = "\nPost.__module__ = 'elsewhere'" if defined.startswith("class") else ""
    instance = own(POST.format(defined + hidden, function))
    instance.initialize(FakeContext(tmp_path / "archive"))

    assert [{"output": answer}] == ask(instance, [2.0])[0]
