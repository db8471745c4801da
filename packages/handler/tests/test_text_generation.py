"""The next token of each text, read off at its own last token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from marline.handler import FakeContext

hf: Any = transformers
Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]
GPT2 = Path(__file__).parents[3] / "models" / "gpt2_tiny"
TEXTS = ["rope", "A rope has two ends, and a knot.", "naïve ropes\n\n  of two words", "rope " * 300]


class Following(torch.nn.Module):
    """Logits [B, tokens, 377]: after token t comes t + 1 most likely, then t + 2, whatever stood before."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: ARG002
        one = torch.nn.functional.one_hot((input_ids + 1) % 377, 377)
        return {"logits": 3.0 * one + 2.0 * torch.nn.functional.one_hot((input_ids + 2) % 377, 377)}


@pytest.fixture
def following(shipped: Open) -> Any:
    """The handler with the tokenizer of gpt2_tiny, around the module above."""
    return shipped("text-generation", GPT2, Following())


@pytest.mark.parametrize("text", TEXTS, ids=["a word", "a sentence", "accents and spaces", "longer than the model takes"])
def test_tokens_are_those_of_the_models_own_tokenizer(following: Any, text: str) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(GPT2, local_files_only=True)

    sample = following.sample({"body": text.encode()})

    expected = tokenizer(text, truncation=True)
    assert {"input_ids": expected["input_ids"], "attention_mask": expected["attention_mask"]} == {
        name: tensor.tolist() for name, tensor in sample.items()
    }
    assert len(sample["input_ids"]) <= 64


def test_texts_of_different_lengths_are_continued_as_if_alone(following: Any, ask: Ask) -> None:
    bodies = [text.encode() for text in TEXTS]

    together, context = ask(following, *bodies)

    assert {} == context.statuses
    assert together == [ask(following, body)[0][0] for body in bodies]


def test_the_likeliest_tokens_come_with_their_probabilities(following: Any, ask: Ask) -> None:
    tokenizer = hf.AutoTokenizer.from_pretrained(GPT2, local_files_only=True)
    last = tokenizer("a rope")["input_ids"][-1]
    scale = 375 + 2.718281828**3 + 2.718281828**2

    answers, _ = ask(following, b"a rope")

    best = answers[0]["output"]
    assert ([last + 1, last + 2], 5) == ([one["index"] for one in best[:2]], len(best))
    assert [tokenizer.decode([one["index"]]) for one in best] == [one["token"] for one in best]
    assert pytest.approx([2.718281828**3 / scale, 2.718281828**2 / scale, 1 / scale]) == [
        one["probability"] for one in best[:3]
    ]


def test_what_is_no_text_is_refused_alone(following: Any, ask: Ask) -> None:
    answers, context = ask(following, b"rope", [1.0], b"  \n")

    assert {1: 400, 2: 400} == {index: code for index, (code, _) in context.statuses.items()}
    assert ["expected a text, got Tensor", "expected a text, got an empty one"] == [one["message"] for one in answers[1:]]
    assert "output" in answers[0]
