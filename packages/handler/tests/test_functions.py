"""What a model's own functions raise or return is the matter of one sample."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.handler import FakeContext

Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]

PICKY = """
import torch
from base_handler import BadRequestError, handler_factory

def preprocess(data):
    if data == "crash":
        raise RuntimeError("a secret path: /srv/keys")
    if data == "refuse":
        raise BadRequestError("refused is not a number")
    if data == "list":
        return [1.0]
    return torch.tensor([float(data)])

def postprocess(output):
    if output.item() == 13:
        raise ArithmeticError
    return {"float": output.item(), "nan": float("nan")} if output.item() == 14 else output.item()

handler = handler_factory(lambda: torch.nn.Identity(), preprocess, postprocess)
"""


def test_what_a_models_own_functions_raise_is_that_items_alone(own: Open, ask: Ask, tmp_path: Path) -> None:
    instance = own(PICKY)
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, context = ask(instance, b"1", b"crash", b"refuse", b"list", b"13", b"14", b"2")

    assert {1: 500, 2: 400, 3: 400, 4: 500, 5: 500} == {index: code for index, (code, _) in context.statuses.items()}
    assert ({"output": 1.0}, {"output": 2.0}) == (answers[0], answers[6])
    assert "refused is not a number" == answers[2]["message"]
    assert "expected numbers (a JSON list, .npy or safetensors), got list" == answers[3]["message"]
    assert "RuntimeError in the handler" == answers[1]["message"]  # its text may hold what clients must not see


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e60"])
def test_numbers_that_are_none_are_refused(own: Open, ask: Ask, tmp_path: Path, number: str) -> None:
    instance = own("import torch\nfrom base_handler import handler_factory\nhandler = handler_factory(torch.nn.Identity)\n")
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, _ = ask(instance, [1.0], json.loads(f"[{number}]"))

    assert {"output": [1.0]} == answers[0]
    assert (400, "the list holds NaN, Infinity or a number too large for float32") == (
        answers[1]["code"],
        answers[1]["message"],
    )
