"""Hugging Face sources: what comes along, what is inferred, and what a checkpoint holds in the end."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
)

from marline.core import Manifest, StageError, verify

Run = Callable[..., Manifest]
Tiny = Callable[[str], Path]
SENTENCE = "This is a long example input string containing special characters .$?-, numbers 2872 234 12 and words."
TOKENS = {"input_ids": torch.tensor([[7, 8, 9, 10], [11, 12, 13, 14]])}


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}


def same(one: Mapping[str, torch.Tensor], two: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.fixture
def gpt2(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny GPT-2 with weights."""
    folder = tmp_path / "gpt2"
    shutil.copytree(tiny("gpt2"), folder)
    torch.manual_seed(3)
    GPT2LMHeadModel(GPT2Config.from_pretrained(folder)).save_pretrained(folder)
    return folder


def test_a_folder_that_needs_no_change_arrives_byte_for_byte(run: Run, tiny: Tiny) -> None:
    manifest = run(source=str(tiny("bert")))

    verify(manifest)
    assert files(tiny("bert")) == files(manifest.path("checkpoint"))
    facts = dict(manifest.facts)
    assert ("transformers", "fill-mask", "text") == (facts["kind"], facts["task"], facts["input"])
    assert ("AutoModelForMaskedLM", ["BertForMaskedLM"]) == (facts["auto_class"], facts["architectures"])
    assert (False, None) == (facts["custom_code"], facts["revision"])
    assert ["tokenizer.json", "tokenizer_config.json"] == facts["processors"]
    assert {"kind": "published", "detail": f"published with {tiny('bert')}"} == facts["weights"]
    assert sum(value.numel() for value in BertForMaskedLM.from_pretrained(tiny("bert")).parameters()) == facts["parameters"]


def test_the_sentence_tokenises_as_in_the_source_and_is_among_the_samples(run: Run, tiny: Tiny) -> None:
    manifest = run(source=str(tiny("gpt2")))

    source, copy = (AutoTokenizer.from_pretrained(folder) for folder in (tiny("gpt2"), manifest.path("checkpoint")))
    assert source(SENTENCE) == copy(SENTENCE)
    assert SENTENCE in [file.read_text() for file in manifest.path("sample").iterdir()]


def test_texts_for_fill_mask_have_one_word_masked_each(run: Run, tiny: Tiny) -> None:
    sample = run(source=str(tiny("bert"))).path("sample")

    assert [1] * 5 == [file.read_text().count("[MASK]") for file in sample.iterdir()]


@pytest.mark.parametrize("weights", ["auto", "random"])
def test_a_config_alone_gives_seeded_random_weights_that_say_so(run: Run, tiny: Tiny, weights: str) -> None:
    one, again, other = (run(source=str(tiny("gpt2")), weights=weights, seed=seed) for seed in (3, 3, 4))

    assert {"kind": "random", "detail": "seed 3: answers mean nothing, speed does"} == one.facts["weights"]
    assert "text-generation" == one.facts["task"]
    first, second, third = (weights_of(each.path("checkpoint")) for each in (one, again, other))
    assert same(first, second)
    assert not same(first, third)
    model: Any = GPT2LMHeadModel.from_pretrained(one.path("checkpoint"))
    assert (2, 7) == model.generate(**TOKENS, max_new_tokens=3).shape


@pytest.mark.parametrize(
    ("name", "task", "kind", "endings", "processors"),
    [
        ("vit", "image-classification", "image", {".jpg"}, ["preprocessor_config.json"]),
        ("wav2vec2", "audio-classification", "audio", {".wav"}, ["preprocessor_config.json"]),
        ("videomae", "video-classification", "video", {".npy"}, ["preprocessor_config.json"]),
        ("clip", "feature-extraction", "text", {".txt"}, ["processor_config.json", "tokenizer.json", "tokenizer_config.json"]),
    ],
)
def test_task_and_samples_follow_from_the_source(
    run: Run, tiny: Tiny, name: str, task: str, kind: str, endings: set[str], processors: list[str]
) -> None:
    manifest = run(source=str(tiny(name)))

    assert (task, kind, processors) == (manifest.facts["task"], manifest.facts["input"], manifest.facts["processors"])
    assert endings == {file.suffix for file in manifest.path("sample").iterdir()}
    assert files(tiny(name)) == files(manifest.path("checkpoint"))


def test_a_told_task_takes_that_head_and_says_what_it_leaves(run: Run, gpt2: Path) -> None:
    manifest = run(source=str(gpt2), task="text-generation", weights="published")
    features = run(source=str(gpt2), task="feature-extraction")

    assert manifest.facts["architectures"] == ["GPT2LMHeadModel"]
    assert ("AutoModel", ["GPT2Model"]) == (features.facts["auto_class"], features.facts["architectures"])
    expected, got = GPT2Model.from_pretrained(gpt2), GPT2Model.from_pretrained(features.path("checkpoint"))
    assert torch.equal(expected(**TOKENS).last_hidden_state, got(**TOKENS).last_hidden_state)


def test_a_head_that_was_never_saved_is_refused_with_what_is_missing(run: Run, tiny: Tiny) -> None:
    with pytest.raises(StageError, match=r"saved as BertForMaskedLM\) does not fit the model; missing: .*classifier\.weight"):
        run(source=str(tiny("bert")), task="text-classification")

    assert "random" == run(source=str(tiny("bert")), task="text-classification", weights="random").facts["weights"]["kind"]


def test_dtype_and_shard_size_are_what_was_asked_for(run: Run, tiny: Tiny) -> None:
    half = run(source=str(tiny("bert")), torch_dtype="float16").path("checkpoint")
    shards = run(source=str(tiny("bert")), max_shard_size="4KB").path("checkpoint")

    assert {torch.float16} == {value.dtype for value in weights_of(half).values()}
    assert len([*shards.glob("model-*.safetensors")]) > 1
    assert same(weights_of(tiny("bert")), weights_of(shards))
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    assert {file.name for file in shards.glob("model-*.safetensors")} == set(index["weight_map"].values())


def test_shards_that_need_no_change_stay_the_files_they_are(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    shutil.copytree(tiny("bert"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    BertForMaskedLM.from_pretrained(tiny("bert")).save_pretrained(folder, max_shard_size="4KB")

    assert files(folder) == files(run(source=str(folder)).path("checkpoint"))


def test_foreign_names_are_mapped_in_order_and_outputs_stay(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    foreign = {f"net.{key.removeprefix('bert.')}": value for key, value in weights_of(tiny("bert")).items()}
    save_file(foreign, tmp_path / "foreign.safetensors")
    rename = {r"^net\.": "", r"^(embeddings|encoder)\.": r"bert.\1."}

    manifest = run(source=str(tiny("bert")), weights=str(tmp_path / "foreign.safetensors"), rename=rename)

    assert {"kind": "file", "detail": str(tmp_path / "foreign.safetensors")} == manifest.facts["weights"]
    expected, got = (BertForMaskedLM.from_pretrained(each) for each in (tiny("bert"), manifest.path("checkpoint")))
    assert torch.allclose(expected(**TOKENS).logits, got(**TOKENS).logits, atol=1e-3)


def test_the_weights_in_a_folder_can_be_renamed_too(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    shutil.copytree(tiny("bert"), folder)
    save_file({f"module.{key}": value for key, value in weights_of(tiny("bert")).items()}, folder / "model.safetensors")

    checkpoint = run(source=str(folder), rename={r"^module\.": ""}).path("checkpoint")

    assert same(weights_of(tiny("bert")), weights_of(checkpoint))


def test_pickles_that_are_allowed_become_safetensors(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(tiny("bert"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(BertForMaskedLM.from_pretrained(tiny("bert")).state_dict(), folder / "pytorch_model.bin")

    manifest = run(source=str(folder), allow_pickle=True)

    assert f"published with {folder}, pickled" == manifest.facts["weights"]["detail"]
    assert not [*manifest.path("checkpoint").glob("*.bin")]
    expected, got = (AutoModelForMaskedLM.from_pretrained(each) for each in (tiny("bert"), manifest.path("checkpoint")))
    assert torch.equal(expected(**TOKENS).logits, got(**TOKENS).logits)


@pytest.mark.parametrize("dtype", ["auto", "float16"])
def test_layers_that_a_device_map_sends_to_disk_are_gathered(run: Run, tiny: Tiny, tmp_path: Path, dtype: str) -> None:
    places = {"bert.embeddings": "cpu", "bert.encoder": "disk", "cls": "cpu"}

    manifest = run(source=str(tiny("bert")), device_map=places, offload_folder=str(tmp_path / "offloaded"), torch_dtype=dtype)

    assert 7216 == manifest.facts["parameters"]
    expected, got = weights_of(tiny("bert")), weights_of(manifest.path("checkpoint"))
    assert expected.keys() == got.keys()
    assert all(torch.allclose(expected[key], got[key].float(), atol=1e-4) for key in expected)


def test_config_settings_are_laid_over_the_sources(run: Run, tiny: Tiny) -> None:
    manifest = run(source=str(tiny("vit")), init_kwargs={"num_labels": 5}, weights="random")

    assert {"num_labels": 5} == manifest.facts["init_kwargs"]
    assert 5 == len(json.loads(manifest.path("checkpoint/config.json").read_text())["id2label"])


@pytest.mark.parametrize("weights", ["random", "published", "file"])
def test_own_code_that_is_trusted_comes_along(run: Run, tiny: Tiny, tmp_path: Path, weights: str) -> None:
    folder, file = tmp_path / "custom", tmp_path / "own.safetensors"
    shutil.copytree(tiny("custom"), folder)
    for target in (folder / "model.safetensors", file):
        save_file({"layer.weight": torch.ones(2, 6), "layer.bias": torch.zeros(2)}, target, metadata={"format": "pt"})

    told = {"weights": str(file) if weights == "file" else weights}
    manifest = run(source=str(folder), trust_remote_code=True, **told)

    checkpoint = manifest.path("checkpoint")
    assert {"configuration_own.py", "modeling_own.py", "sizes.py"} == {path.name for path in checkpoint.glob("*.py")}
    assert (True, "AutoModelForImageClassification") == (manifest.facts["custom_code"], manifest.facts["auto_class"])
    assert json.loads((folder / "config.json").read_text())["auto_map"].items() <= (
        json.loads((checkpoint / "config.json").read_text())["auto_map"].items()
    )
    model = AutoModelForImageClassification.from_pretrained(checkpoint, trust_remote_code=True)
    assert weights == "random" or torch.equal(torch.ones(2, 6), model.layer.weight)


def test_code_that_is_not_needed_stays_behind_when_nobody_trusts_it(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(tiny("bert"), folder)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, "auto_map": {"AutoModel": "modeling_evil.Evil"}}))
    (folder / "modeling_evil.py").write_text("raise SystemExit('ran')\n")

    manifest = run(source=str(folder))

    assert "auto_map" not in json.loads(manifest.path("checkpoint/config.json").read_text())
    assert [] == [*manifest.path("checkpoint").glob("*.py")]
    assert not manifest.facts["custom_code"]
