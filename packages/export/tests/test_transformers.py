"""A transformers model is exported by its arguments' names, for any length, and answers by its outputs' names."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from marline.core import ExportConfig, Manifest, seal
from marline.export import export

MODELING = """
from transformers import BertForSequenceClassification


class Tiny(BertForSequenceClassification):
    pass
"""
HANDLER = """
import torch
from base_handler import handler_factory


def preprocess(text):
    ids = torch.tensor([ord(letter) % 64 for letter in text])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


handler = handler_factory(preprocess_function=preprocess)
"""
Run = Callable[..., tuple[Manifest, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Export a small BERT with random weights; returns the manifest and the eager model."""

    def make(**changed: object) -> tuple[Manifest, Any]:
        torch.manual_seed(0)
        told = BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
        eager = BertForSequenceClassification(told).eval()  # type: ignore[no-untyped-call]
        repository, sample = tmp_path / "run" / "wrap" / "repository", tmp_path / "run" / "load" / "sample"
        eager.save_pretrained(repository)
        (repository / "modeling_tiny.py").write_text(MODELING)
        sample.mkdir(parents=True)
        for index, text in enumerate(("a rope", "a longer rope has two ends", "of")):
            (sample / f"{index}.txt").write_text(text)
        (tmp_path / "handler.py").write_text(HANDLER)
        values = {"method": "auto", "atol": 1e-5, "rtol": 1e-4, "batch_sizes": (1, 2, 7), **changed}
        config = ExportConfig.model_validate(values)
        facts = {"kind": "transformers", "base_class": "modeling_tiny.Tiny", "exported_module": None}
        loaded, wrapped = (
            seal(tmp_path / "run" / stage, model="tiny", config=config, inputs=[], facts=facts, started=time.monotonic())
            for stage in ("load", "wrap")
        )
        (tmp_path / "run" / "export").mkdir()
        return export("tiny", config, loaded, wrapped, tmp_path / "handler.py", tmp_path / "run" / "export"), eager

    return make


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_bert_answers_like_the_eager_one_at_lengths_it_has_not_seen(run: Run) -> None:
    manifest, eager = run()
    exported = torch.jit.load(str(manifest.path("model.pt")))  # type: ignore[no-untyped-call]
    ids = torch.arange(33).reshape(3, 11)
    mask = torch.tensor([[1] * 11, [1] * 5 + [0] * 6, [1] * 11])

    with torch.inference_mode():
        expected, got = eager(ids, attention_mask=mask), exported(ids, mask)

    assert "trace" == manifest.facts["method"]
    assert ["input_ids", "attention_mask"] == [*manifest.facts["input"]]
    assert {"logits"} == {row["output"] for row in manifest.facts["parity"]}
    assert torch.allclose(expected.logits, got["logits"], atol=1e-5)
    assert json.loads(manifest.path("golden.json").read_text())["pairs"][0]["answer"]["output"]["logits"]
