"""The faults of byne-serve's wrapper, none of which this one has; numbers as in the list of its defects."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from marline.core import Manifest, WrapConfig
from marline.wrap import wrap

Pair = tuple[Any, Any]
Make = Callable[..., Manifest]
Configure = Callable[..., WrapConfig]


def test_t2_a_failing_constructor_raises_its_own_error_and_is_reported(seen: Pair) -> None:
    tracked, stock = seen[0].told["models"]["bert"]["init_errors"]

    assert stock == tracked
    assert "no_such_argument" in tracked
    assert 1 == seen[0].reports["bert __init__ fail"]


def test_t3_arguments_of_the_constructor_are_passed_on(seen: Pair) -> None:
    assert seen[0].told["models"]["bert"]["pooler"]


def test_t4_signatures_stay_so_that_generation_makes_its_own_attention_mask(seen: Pair) -> None:
    """A padding token is among the inputs of GPT-2: without a mask it would generate something else."""
    models = seen[0].told["models"]

    assert all(all(model["signatures"]) for model in models.values())
    assert 0.0 == models["gpt2"]["distance"]["generated"]


def test_t5_only_what_can_generate_has_generate(seen: Pair) -> None:
    generating = {run: model["generates"] for run, model in seen[0].told["models"].items()}

    assert [True, True] == generating.pop("gpt2") == generating.pop("mixtral")
    assert {(False, False)} == {tuple(found) for found in generating.values()}


def test_t6_auto_model_is_the_bare_model(seen: Pair) -> None:
    bert, gpt2 = (seen[0].told["models"][run]["bare"] for run in ("bert", "gpt2"))

    assert ["BertModel", "tracked_bert", "last_hidden_state", "pooler_output"] == bert
    assert ["GPT2Model", "tracked_gpt2", "last_hidden_state", "past_key_values"] == gpt2


def test_t7_other_models_of_the_process_are_not_tracked(seen: Pair) -> None:
    for run in ("bert", "gpt2"):
        assert ["transformers"] == seen[0].told["models"][run]["contaminated"]


def test_t8_architectures_stay_also_in_what_is_saved(seen: Pair) -> None:
    saved = {run: model["saved_config"] for run, model in seen[0].told["models"].items()}

    assert ["BertForSequenceClassification"] == saved["bert"]["architectures"]
    assert ["GPT2LMHeadModel"] == saved["gpt2"]["architectures"]
    assert ["OwnForSequenceClassification"] == saved["own"]["architectures"]
    assert "tracked_bert.BertModel" == saved["bert"]["auto_map"]["AutoModel"]
    assert "transformers.models.bert.modeling_bert.BertForSequenceClassification" == seen[0].told["models"]["bert"]["untrusted"]


def test_t17_the_collectors_address_is_data_and_never_code(loaded: Make, config: Configure, tmp_path: Path) -> None:
    address = "http://127.0.0.1:9/);print(1"

    repository = wrap("tiny", config(collector_url=address), loaded(tmp_path), tmp_path / "wrap").path("repository")

    assert address == json.loads((repository / "tracker.json").read_text())["collector_url"]
    assert not [file.name for file in repository.glob("*.py") if "127.0.0.1:9" in file.read_text()]


def test_t18_types_and_side_files_are_the_sources(
    loaded_transformers: Make, tiny_models: dict[str, Any], config: Configure, tmp_path: Path
) -> None:
    made = loaded_transformers(tmp_path, tiny_models["gpt2"](), "AutoModelForCausalLM", "text-generation", max_shard_size="5KB")

    repository = wrap("gpt2", config(), made, tmp_path / "wrap").path("repository")

    checkpoint = made.path("checkpoint")
    kept = {file.name for file in checkpoint.iterdir()} - {"README.md", "config.json"}
    assert {"LICENSE", "generation_config.json", "tokenizer.json", "model.safetensors.index.json"} <= kept
    assert all((checkpoint / name).read_bytes() == (repository / name).read_bytes() for name in kept)
    assert (checkpoint / "README.md").read_text() == (repository / "README_source.md").read_text()
    shard = next(repository.glob("model-*.safetensors"))
    with safe_open(shard, "pt") as weights:
        assert {"BF16"} == {weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118 - no dictionary


def test_t19_code_of_its_own_is_no_obstacle(seen: Pair) -> None:
    own = seen[0].told["models"]["own"]

    assert 0.0 == own["distance"]["tracked"]
    assert own["reported_by"]
    assert "tracked_own.OwnModel" == own["saved_config"]["auto_map"]["AutoModel"]


@pytest.mark.parametrize("run", ["one", "bert", "own"])
def test_t22_what_export_takes_has_no_tracker_to_lose(seen: Pair, run: str) -> None:
    """The base answered in the same process, and every report is accounted for without it."""
    assert 0.0 == seen[0].told["models"][run]["distance"]["base"]
    assert sum(seen[0].told["tally"].values()) + sum(seen[1].told["tally"].values()) == seen[0].reports.total()
