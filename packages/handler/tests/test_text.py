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

from marline.core import StageError
from marline.handler import FakeContext, assemble, handler_of, opened
from marline.handler.collation import most_likely

Ask = Callable[..., tuple[list[Any], FakeContext]]
WORDS = ["[UNK]", "a", "rope", "has", "two", "ends"]


class MaskedSum(nn.Module):
    """Vectors [B, tokens, 2] of its input, nothing where the mask says so; logits [B, 3] are their sums."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = (input_ids * attention_mask).float()
        vectors = torch.stack([seen, attention_mask.float()], dim=2)
        return {"last_hidden_state": vectors, "logits": torch.stack([seen.sum(1), seen.sum(1) / 2, seen.sum(1) * 0], dim=1)}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    """One of words; there is a folder for an archive too."""
    (tmp_path / "archive").mkdir()
    made = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()
    return made


@pytest.fixture(params=["feature-extraction", "text-classification"])
def text(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: Tokenizer) -> Iterator[Any]:
    """The shipped handler of a text task around the module above."""
    (tmp_path / "checkpoint").mkdir()
    tokenizer.save(str(tmp_path / "checkpoint" / "tokenizer.json"))
    config = {"max_position_embeddings": 4, "id2label": {"0": "long", "1": "half", "2": "none"}}
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps(config))
    handler = handler_of(tmp_path, "any", request.param, None)
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


def test_what_is_far_behind_the_last_token_is_not_looked_at(text: Any, ask: Ask) -> None:
    answers, context = ask(text, b"a", b"a" + b" " * 1_000 + b"rope has two ends" * 100_000)

    assert (answers[0], {}) == (answers[1], context.statuses)


def test_a_text_is_cut_where_sentence_transformers_cuts_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 2}))
    assemble(handler_of(tmp_path, "any", "feature-extraction", None), tmp_path, tmp_path / "archive")

    with opened(tmp_path / "archive", "feature_extraction") as instance:
        sample = instance.sample({"body": b"a rope has two ends"})

    assert [1, 2] == sample["input_ids"].tolist()


def test_a_model_without_tokenizer_json_is_told_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    assemble(handler_of(tmp_path, "any", "feature-extraction", None), tmp_path, tmp_path / "archive")

    with (
        pytest.raises(StageError, match=r"there is no tokenizer\.json; AutoTokenizer"),
        opened(tmp_path / "archive", "feature_extraction"),
    ):
        pass


@pytest.mark.parametrize(
    ("told", "logits", "probabilities"),
    [
        ({}, [0.0, 0.0], [0.5, 0.5]),
        ({"problem_type": "multi_label_classification"}, [20.0, 20.0], [1.0, 1.0]),
        ({}, [0.0], [0.5]),
    ],
)
def test_probabilities_are_those_of_transformers_pipelines(
    told: dict[str, Any], logits: list[float], probabilities: list[float]
) -> None:
    answers = most_likely({"logits": torch.tensor(logits)}, {**told, "id2label": {"0": "yes"}})

    assert pytest.approx(probabilities, abs=1e-6) == [answer["probability"] for answer in answers]
    assert "yes" == answers[0]["label"]


def test_a_regression_has_no_labels() -> None:
    with pytest.raises(ValueError, match="which has no labels"):
        most_likely(torch.tensor([0.3]), {"problem_type": "regression"})


def test_what_is_no_text_is_refused_alone(text: Any, ask: Ask) -> None:
    answers, context = ask(text, b"rope", [1.0], b"  ")

    assert {1: 400, 2: 400} == {index: code for index, (code, _) in context.statuses.items()}
    assert "expected a text, got Tensor" == answers[1]["message"]
    assert "output" in answers[0]
