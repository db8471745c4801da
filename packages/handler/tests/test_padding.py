"""Samples of different lengths in one batch are answered as if alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marline.handler import FakeContext

Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]
BERT = """
import torch
from base_handler import handler_factory
from transformers import BertConfig, BertForSequenceClassification

def init_function():
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32)
    return BertForSequenceClassification(BertConfig(vocab_size=50, max_position_embeddings=512, num_labels=3, **sizes))

def preprocess(data):
    ids = data.long()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

handler = handler_factory(init_function, preprocess, lambda output: output["logits"])
"""
PLAIN = """
import torch
from base_handler import handler_factory
CALLS = []

class Mean(torch.nn.Module):
    def forward(self, numbers, offset=None):
        CALLS.append(list(numbers.shape))
        return numbers.mean(1) if offset is None else numbers.mean(1) + 1000 * offset[:, 0]

Mean.__module__ = "elsewhere"
handler = handler_factory(Mean{})
del Mean
"""
LENGTHS = (1, 512, 7, 64)


def test_a_batch_of_1_and_512_tokens_equals_the_single_answers(own: Open, ask: Ask, tmp_path: Path) -> None:
    instance = own(BERT)
    instance.initialize(FakeContext(tmp_path / "archive"))
    torch.manual_seed(1)
    bodies = [torch.randint(1, 50, (length,)).tolist() for length in LENGTHS]
    alone = [ask(instance, body)[0][0]["output"] for body in bodies]

    together, context = ask(instance, *bodies)

    assert {} == context.statuses
    for one, answer in zip(alone, together, strict=True):
        assert one == pytest.approx(answer["output"], abs=1e-5)
    assert max(abs(a - b) for a, b in zip(alone[0], alone[1], strict=True)) > 1e-3  # it is not that nothing matters


@pytest.fixture
def calls() -> Callable[[Any], list[list[int]]]:
    """The shapes an instance's network was called with."""
    import sys

    return lambda instance: list(vars(sys.modules[type(instance).__module__])["CALLS"])


@pytest.mark.parametrize("named", [False, True], ids=["tensors", "named tensors"])
def test_without_a_mask_nothing_is_padded(
    own: Open, ask: Ask, tmp_path: Path, calls: Callable[[Any], list[list[int]]], named: bool
) -> None:
    """The mean would be another; the two of one length are still one call."""
    instance = own(PLAIN.format(', lambda data: {"numbers": data}' if named else ""))
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, _ = ask(instance, [3.0], [1.0, 3.0], [5.0])

    assert [3.0, 2.0, 5.0] == [answer["output"] for answer in answers]
    assert [[2, 1], [1, 2]] == calls(instance)


def test_a_collate_function_of_ones_own_gets_them_all(
    own: Open, ask: Ask, tmp_path: Path, calls: Callable[[Any], list[list[int]]]
) -> None:
    pad = "torch.nn.utils.rnn.pad_sequence(list(samples), batch_first=True, padding_value=3.0)"
    instance = own(PLAIN.format(f", collate_function=lambda samples: ({pad},)"))
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, _ = ask(instance, [3.0], [1.0, 3.0])

    assert [3.0, 2.0] == [answer["output"] for answer in answers]
    assert [[2, 2]] == calls(instance)


@pytest.mark.parametrize("scripted", [False, True])
def test_named_tensors_reach_the_arguments_of_their_names_in_whatever_order_they_were_sent(
    own: Open, ask: Ask, tmp_path: Path, scripted: bool
) -> None:
    """The safetensors library orders a file by its own rule."""
    instance = own("from base_handler import handler_factory\nhandler = handler_factory()\n" if scripted else PLAIN.format(""))
    if scripted:
        torch.jit.script(Named()).save(str(tmp_path / "archive" / "model.pt"))  # type: ignore[no-untyped-call]
    instance.initialize(FakeContext(tmp_path / "archive", "model.pt" if scripted else None))
    numbers, offset = torch.tensor([1.0, 3.0]), torch.tensor([2.0])

    one = instance._checked({"numbers": numbers, "offset": offset})
    other = instance._checked({"offset": offset, "numbers": numbers})

    assert [2002.0, 2002.0] == [answer.item() for answer in instance.inference([one, other])]


class Named(torch.nn.Module):
    def forward(self, numbers: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        return numbers.mean(1) + 1000 * offset[:, 0]


def test_no_tensor_at_all_is_a_bad_request(own: Open, ask: Ask, tmp_path: Path) -> None:
    instance = own(PLAIN.format(""))
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, context = ask(instance, [1.0], {})

    assert {1: (400, "Bad Request")} == context.statuses
    assert "expected numbers (a JSON list, .npy or safetensors), got dict" == answers[1]["message"]
