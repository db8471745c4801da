"""A transformers model is exported by its arguments' names, for any length, and answers by its outputs' names."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from marline.core import ExportConfig, Manifest, read_config, seal
from marline.export import export
from marline.handler import load_base
from marline.telemetry import fake_collector
from marline.wrap import wrap

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
TEXTS = ("a rope", "a longer rope has two ends", "of")
Run = Callable[..., tuple[Manifest, Any]]


def small_bert() -> Any:
    torch.manual_seed(0)
    told = BertConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
    return BertForSequenceClassification(told).eval()  # type: ignore[no-untyped-call]


@pytest.fixture
def run(tmp_path: Path, quick: Callable[..., ExportConfig]) -> Run:
    """Export a small BERT with random weights; returns the manifest and the eager model."""

    def make(**changed: object) -> tuple[Manifest, Any]:
        eager = small_bert()
        repository, sample = tmp_path / "run" / "wrap" / "repository", tmp_path / "run" / "load" / "sample"
        eager.save_pretrained(repository)
        (repository / "modeling_tiny.py").write_text(MODELING)
        sample.mkdir(parents=True)
        for index, text in enumerate(TEXTS):
            (sample / f"{index}.txt").write_text(text)
        (tmp_path / "handler.py").write_text(HANDLER)
        config = quick(**{"atol": 1e-5, "rtol": 1e-4, **changed})
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
    assert {"logits"} == {row["output"] for row in manifest.facts["parity"]} == set(manifest.facts["signature"]["outputs"])
    assert [{"dtype": "int64", "shape": ["batch", "any"]}] * 2 == manifest.facts["signature"]["inputs"]
    assert torch.allclose(expected.logits, got["logits"], atol=1e-5)
    assert json.loads(manifest.path("golden.json").read_text())["pairs"][0]["answer"]["output"]["logits"]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_exporting_a_tracked_repository_reports_nothing(
    tmp_path: Path, quick: Callable[..., ExportConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one report that arrives is of the tracked class, which is called last: it shows that others would have arrived."""
    monkeypatch.setenv("MARLINE_TELEMETRY", "on")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in ("DO_NOT_TRACK", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "load" / "sample").mkdir(parents=True)
    for index, text in enumerate(TEXTS):
        (tmp_path / "load" / "sample" / f"{index}.txt").write_text(text)
    small_bert().save_pretrained(tmp_path / "load" / "checkpoint")
    (tmp_path / "handler.py").write_text(HANDLER)
    facts = {
        "kind": "transformers",
        "custom_code": False,
        "revision": None,
        "processors": [],
        "source": "./somewhere",
        "auto_class": "AutoModelForSequenceClassification",
        "task": "text-classification",
        "parameters": 42,
        "architectures": ["BertForSequenceClassification"],
        "init_kwargs": {},
        "weights": {"kind": "random", "detail": ""},
    }
    loaded = seal(tmp_path / "load", model="bert", config=quick(), inputs=[], facts=facts, started=time.monotonic())
    default = read_config(["model=digits_cnn"]).config.wrap
    (tmp_path / "wrap").mkdir()
    (tmp_path / "export").mkdir()

    with fake_collector("/reports/bert") as collector:
        wrapped = wrap("bert", default.model_copy(update={"collector_url": collector.url}), loaded, tmp_path / "wrap")
        export("bert", quick(), loaded, wrapped, tmp_path / "handler.py", tmp_path / "export")
        load_base(wrapped.path("repository"), wrapped.facts["tracked_class"], None)(torch.ones(1, 3, dtype=torch.int64))
        until = time.monotonic() + 30
        while not collector.reports and time.monotonic() < until:
            time.sleep(0.05)

    assert [("forward", "success")] == [(report["method"], report["status"]) for report in collector.reports]
