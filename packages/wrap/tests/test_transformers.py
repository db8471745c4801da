"""Architectures that transformers has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.core import Manifest, RequestError, StageError, WrapConfig
from marline.wrap import wrap

Make = Callable[..., Manifest]
Configure = Callable[..., WrapConfig]


@pytest.fixture
def bert(loaded_transformers: Make, tiny_models: dict[str, Any], tmp_path: Path) -> Manifest:
    return loaded_transformers(tmp_path, tiny_models["bert"](), "AutoModelForSequenceClassification", "text-classification")


def test_every_auto_class_that_knows_the_architecture_is_mapped(bert: Manifest, config: Configure, tmp_path: Path) -> None:
    manifest = wrap("bert", config(), bert, tmp_path / "wrap")

    told = json.loads(manifest.path("repository/config.json").read_text())
    assert "configuration_bert.BertConfig" == told["auto_map"].pop("AutoConfig")
    assert {
        "AutoModel": "tracked_bert.BertModel",
        "AutoModelForCausalLM": "tracked_bert.BertLMHeadModel",
        "AutoModelForMaskedLM": "tracked_bert.BertForMaskedLM",
        "AutoModelForMultipleChoice": "tracked_bert.BertForMultipleChoice",
        "AutoModelForNextSentencePrediction": "tracked_bert.BertForNextSentencePrediction",
        "AutoModelForPreTraining": "tracked_bert.BertForPreTraining",
        "AutoModelForQuestionAnswering": "tracked_bert.BertForQuestionAnswering",
        "AutoModelForSequenceClassification": "tracked_bert.BertForSequenceClassification",
        "AutoModelForTextEncoding": "tracked_bert.BertModel",
        "AutoModelForTokenClassification": "tracked_bert.BertForTokenClassification",
    } == told["auto_map"]
    before = json.loads(bert.path("checkpoint/config.json").read_text())
    assert before == {key: value for key, value in told.items() if key != "auto_map"}


def test_facts_name_the_classes_by_kind(bert: Manifest, config: Configure, tmp_path: Path) -> None:
    facts = wrap("bert", config(), bert, tmp_path / "wrap").facts

    assert ["torch", "transformers"] == [line.partition("==")[0] for line in facts.pop("requirements")]
    assert {
        "kind": "transformers",
        "task": "text-classification",
        "base_class": "modeling_bert.BertForSequenceClassification",
        "tracked_class": "tracked_bert.BertForSequenceClassification",
        "auto_class": "AutoModelForSequenceClassification",
        "exported_module": None,
        "collector_url": None,
        "methods": ["forward"],
    } == facts


def test_methods_are_tracked_where_a_class_has_them(bert: Manifest, config: Configure, tmp_path: Path) -> None:
    manifest = wrap("bert", config(methods=("get_input_embeddings",)), bert, tmp_path / "wrap")

    code = manifest.path("repository/tracked_bert.py").read_text()
    assert "    get_input_embeddings = tracked(UntrackedBertModel.get_input_embeddings)\n" in code
    assert ["forward", "get_input_embeddings"] == manifest.facts["methods"]


def test_methods_the_architecture_lacks_are_named(bert: Manifest, config: Configure, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"BertForSequenceClassification has no embed_text, speak; leave out"):
        wrap("bert", config(methods=("forward", "embed_text", "speak")), bert, tmp_path / "wrap")

    assert [] == list((tmp_path / "wrap").iterdir())


@pytest.mark.parametrize("name", ["__init__", "save_pretrained", "from_pretrained", "config_class", "device"])
def test_what_is_no_method_for_users_is_not_tracked(bert: Manifest, config: Configure, tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match=rf"wrap\.methods: .*{name}"):
        wrap("bert", config(methods=(name,)), bert, tmp_path / "wrap")


def test_an_architecture_that_this_transformers_lacks_is_refused(bert: Manifest, config: Configure, tmp_path: Path) -> None:
    file = bert.path("checkpoint/config.json")
    told = json.loads(file.read_text())
    file.write_text(json.dumps({**told, "model_type": "novel"}))

    with pytest.raises(StageError, match="knows no model_type 'novel'"):
        wrap("bert", config(), bert, tmp_path / "wrap")

    file.write_text(json.dumps({**told, "architectures": ["BertForNothing"]}))
    with pytest.raises(StageError, match=r"lacks one of the architectures \['BertForNothing'\]"):
        wrap("bert", config(), bert, tmp_path / "wrap")


def test_the_card_names_licence_level_rate_and_source(bert: Manifest, config: Configure, tmp_path: Path) -> None:
    told = config(collector_url="http://127.0.0.1:8000/reports/bert", sample_rate=0.25)

    card = wrap("bert", told, bert, tmp_path / "wrap").path("repository/README.md").read_text()

    for words in ("license: mit", "README_source.md", "(25 % of them", "detail level `minimal`", "Calls of `forward`"):
        assert words in card
