"""Texts of different lengths share a batch and are answered as if alone."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn

from marline.handler import FakeContext, assemble, handler_of, opened

Ask = Callable[..., tuple[list[Any], FakeContext]]
WORDS = ["[UNK]", "a", "rope", "has", "two", "ends"]


class MaskedSum(nn.Module):
    """Vectors [B, tokens, 2] of its input, nothing where the mask says so; logits [B, 3] are their sums."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = (input_ids * attention_mask).float()
        vectors = torch.stack([seen, attention_mask.float()], dim=2)
        return {"last_hidden_state": vectors, "logits": torch.stack([seen.sum(1), seen.sum(1) / 2, seen.sum(1) * 0], dim=1)}


@pytest.fixture(params=["feature-extraction", "text-classification"])
def text(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The shipped handler of a text task around the module above."""
    (tmp_path / "checkpoint").mkdir()
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "checkpoint" / "tokenizer.json"))
    config = {"max_position_embeddings": 4, "id2label": {"0": "long", "1": "half", "2": "none"}}
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps(config))
    handler = handler_of(tmp_path, "any", request.param, None)
    (tmp_path / "archive").mkdir()
    assemble(handler, tmp_path / "checkpoint", tmp_path / "archive")
    torch.jit.script(MaskedSum()).save(str(tmp_path / "archive" / "model.pt"))  # type: ignore[no-untyped-call]
    with opened(tmp_path / "archive", handler.stem) as instance:
        instance.initialize(FakeContext(tmp_path / "archive", "model.pt"))
        yield instance


def test_a_batch_of_different_lengths_is_answered_like_each_text_alone(text: Any, ask: Ask) -> None:
    bodies = [b"rope", b"a rope has two ends", "a rope ôps".encode(), b"two two"]

    together, context = ask(text, *bodies)
    alone = [ask(text, body)[0][0] for body in bodies]

    assert {} == context.statuses
    assert alone == together


def test_a_text_longer_than_the_model_takes_is_cut(text: Any, ask: Ask) -> None:
    answers, _ = ask(text, b"a rope has two", b"a rope has two ends ends ends")

    assert answers[0] == answers[1]


def test_what_is_no_text_is_refused_alone(text: Any, ask: Ask) -> None:
    answers, context = ask(text, b"rope", [1.0], b"  ")

    assert {1: 400, 2: 400} == {index: code for index, (code, _) in context.statuses.items()}
    assert "expected a text, got Tensor" == answers[1]["message"]
    assert "output" in answers[0]
