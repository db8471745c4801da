"""Bad Hugging Face sources: each is a clear message, and none leaves anything behind (the fixture `run` looks)."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM

from marline.core import Manifest, RequestError, StageError

Run = Callable[..., Manifest]
Tiny = Callable[[str], Path]


class Bomb:
    """Makes a folder when it is unpickled by a reader that runs code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def bert(tiny: Tiny, tmp_path: Path) -> Path:
    """A copy of the tiny BERT, to be damaged."""
    return Path(shutil.copytree(tiny("bert"), tmp_path / "bert"))


def change_config(folder: Path, **told: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **told}))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"source": "./no/such/folder"}, r"load\.source=\./no/such/folder: there is no such folder"),
        ({"source": "package:sklearn/datasets"}, r"the folder has no config\.json, so it is no model of transformers"),
        ({"source": "hf:org/name@main", "trust_remote_code": True}, r"code of org/name, and 'main' may change at any time"),
        ({"source": "hf:org/name", "trust_remote_code": True}, r"'its main branch' may change .*hf:ORG/NAME@COMMIT"),
        ({"offload_folder": "somewhere"}, r"load\.offload_folder has no effect without load\.device_map"),
        ({"task": "object-detection"}, r"load\.task=object-detection does not fit .* \(bert\); known for it are .*fill-mask"),
        ({"init_kwargs": {"hiden_size": 3}}, r"load\.init_kwargs: the config of .* \(bert\) has no hiden_size"),
        ({"weights": "random", "rename": {"a": "b"}}, r"load\.rename has no effect on random weights"),
        ({"rename": {"(": "b"}}, r"load\.rename: '\(' -> 'b' is no regular expression"),
    ],
)
def test_a_wrong_request_is_refused(run: Run, bert: Path, told: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        run(**{"source": str(bert), **told})


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"model_type": "brt"}, r"has model_type 'brt', which transformers does not know; did you mean"),
        ({"model_type": None}, r"has model_type None, which transformers does not know"),
        ({"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}, r"runs code of its own; read it, then set .*40 hex"),
        ({"architectures": ["BertForPreTraining"]}, r"BertForPreTraining, are of no task we know; set load\.task=TASK, known"),
        ({"architectures": None}, r"cannot be inferred: it names none; set load\.task=TASK, known for it are .*text-class"),
    ],
)
def test_a_config_that_says_too_little_is_asked_about(run: Run, bert: Path, told: dict[str, Any], message: str) -> None:
    change_config(bert, **told)

    with pytest.raises(RequestError, match=message):
        run(source=str(bert))


def test_a_config_that_is_no_object_is_refused(run: Run, bert: Path) -> None:
    (bert / "config.json").write_text("[1]")

    with pytest.raises(RequestError, match=r"config\.json of .* is no JSON object"):
        run(source=str(bert))


def test_a_link_that_leads_out_of_the_folder_is_not_followed(run: Run, bert: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("nobody's business")
    (bert / "NOTICE").symlink_to(tmp_path / "secret")

    with pytest.raises(RequestError, match=r"NOTICE in .* is a link to .*secret, which would be published"):
        run(source=str(bert))


def test_the_links_of_the_hubs_cache_are_followed(run: Run, bert: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--me--bert" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    bert.rename(tmp_path / "models--me--bert" / "blobs")
    for file in (tmp_path / "models--me--bert" / "blobs").iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs", file.name))

    assert "LICENSE.txt" in [path.name for path in run(source=str(snapshot)).path("checkpoint").iterdir()]


def test_a_model_without_its_processor_is_asked_about(run: Run, bert: Path) -> None:
    for file in bert.glob("tokenizer*"):
        file.unlink()

    with pytest.raises(RequestError, match=r"takes text, and has no files of a Tokenizer"):
        run(source=str(bert))


def test_a_processor_that_cannot_be_opened_is_named(run: Run, bert: Path) -> None:
    (bert / "tokenizer.json").write_text("{}")

    with pytest.raises(StageError, match=r"the Tokenizer of .* cannot be opened"):
        run(source=str(bert))


@pytest.mark.parametrize("reference", ["other/place--own.Own", "../own.Own", 3])
def test_code_from_elsewhere_is_refused(run: Run, tiny: Tiny, tmp_path: Path, reference: object) -> None:
    folder = Path(shutil.copytree(tiny("custom"), tmp_path / "custom"))
    change_config(folder, auto_map={"AutoConfig": reference})

    with pytest.raises(RequestError, match=r"which lies elsewhere; no commit pins that"):
        run(source=str(folder), trust_remote_code=True)


def test_code_that_is_not_complete_is_named(run: Run, tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny("custom"), tmp_path / "custom"))
    (folder / "sizes.py").unlink()

    with pytest.raises(StageError, match=r"names modeling_own\.OwnModel, which is not complete: .*sizes\.py"):
        run(source=str(folder), trust_remote_code=True)


def test_published_weights_that_are_not_there_are_refused(run: Run, tiny: Tiny) -> None:
    with pytest.raises(RequestError, match=r"load\.weights=published: .* has no weights"):
        run(source=str(tiny("gpt2")), weights="published")


def test_a_missing_shard_is_named(run: Run, bert: Path) -> None:
    BertForMaskedLM.from_pretrained(bert).save_pretrained(bert, max_shard_size="4KB")
    (bert / "model.safetensors").unlink(missing_ok=True)
    lost = sorted(bert.glob("model-*.safetensors"))[1]
    lost.unlink()

    with pytest.raises(StageError, match=rf"names {lost.name}, which is not there"):
        run(source=str(bert))


@pytest.mark.parametrize("content", ["{}", "[]", "no json"])
def test_a_damaged_index_is_named(run: Run, bert: Path, content: str) -> None:
    (bert / "model.safetensors").unlink()
    (bert / "model.safetensors.index.json").write_text(content)

    with pytest.raises(StageError, match=r"model\.safetensors\.index\.json is damaged"):
        run(source=str(bert))


@pytest.mark.parametrize("shards", [["../model.safetensors"], ["/model.safetensors"], []])
def test_shards_outside_of_the_folder_are_refused(run: Run, bert: Path, shards: list[str]) -> None:
    (bert / "model.safetensors").rename(bert.parent / "model.safetensors")
    told = {"weight_map": {f"layer{index}": name for index, name in enumerate(shards)}}
    (bert / "model.safetensors.index.json").write_text(json.dumps(told))

    with pytest.raises(StageError, match=r"index\.json names .*; shards are files beside it"):
        run(source=str(bert))


def test_a_truncated_file_is_named(run: Run, bert: Path) -> None:
    file = bert / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(StageError, match=r"model\.safetensors is not a safetensors file"):
        run(source=str(bert))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("rename", [{}, {"LayerNorm": "LayerNorm"}])
def test_weights_that_are_not_finite_are_named(run: Run, bert: Path, value: float, rename: dict[str, str]) -> None:
    tensors = load_file(bert / "model.safetensors")
    tensors["bert.embeddings.LayerNorm.weight"][3] = value
    save_file(tensors, bert / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(StageError, match=r"not finite in bert\.embeddings\.LayerNorm\.weight$"):
        run(source=str(bert), rename=rename)


@pytest.mark.parametrize("foreign", [False, True])
def test_keys_that_do_not_fit_are_listed(run: Run, bert: Path, tmp_path: Path, foreign: bool) -> None:
    tensors = load_file(bert / "model.safetensors")
    del tensors["bert.embeddings.LayerNorm.bias"]
    tensors["bert.embeddings.LayerNorm.weight"] = torch.ones(3)
    tensors["head.own"] = torch.ones(3)
    file = tmp_path / "own.safetensors" if foreign else bert / "model.safetensors"
    save_file(tensors, file, metadata={"format": "pt"})

    extra = r"; not in the model: head\.own" if foreign else ""  # published beside other heads, foreign by mistake
    told = rf"missing: bert\.embeddings\.LayerNorm\.bias{extra}; of another shape: bert\.embeddings\.LayerNorm\.weight$"
    with pytest.raises(StageError, match=told):
        run(source=str(bert), weights=str(file) if foreign else "auto")


def test_a_file_without_tensors_does_not_fall_back_to_the_folders(run: Run, bert: Path, tmp_path: Path) -> None:
    save_file({}, tmp_path / "empty.safetensors")

    with pytest.raises(StageError, match=r"empty\.safetensors does not fit the model; missing: .* more$"):
        run(source=str(bert), weights=str(tmp_path / "empty.safetensors"))


def test_two_tensors_of_one_name_are_refused(run: Run, bert: Path) -> None:
    with pytest.raises(StageError, match=r"load\.rename gives several tensors .* the same name: same"):
        run(source=str(bert), rename={"^.*LayerNorm.*$": "same"})


def test_a_rename_that_matches_nothing_is_refused_with_the_names_there_are(run: Run, bert: Path) -> None:
    with pytest.raises(StageError, match=r"load\.rename: '\^module' matches no name in .*; it has bert\.embed.* and \d+ more$"):
        run(source=str(bert), rename={"^module": ""})


def test_pickles_are_refused_unless_allowed(run: Run, bert: Path) -> None:
    torch.save(load_file(bert / "model.safetensors"), bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()

    with pytest.raises(RequestError, match=r"has pickled weights only .* or set load\.allow_pickle=true"):
        run(source=str(bert))
    with pytest.raises(RequestError, match=r"pytorch_model\.bin is a pickle; convert it to safetensors"):
        run(source=str(bert), weights=str(bert / "pytorch_model.bin"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_bomb_never_runs(run: Run, bert: Path, tmp_path: Path, zipped: bool) -> None:
    tensors = {**load_file(bert / "model.safetensors"), "bomb": Bomb(tmp_path / "boom")}
    (bert / "model.safetensors").unlink()
    torch.save(tensors, bert / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)

    with pytest.raises(StageError, match=r"pytorch_model\.bin holds more than tensors, or is damaged; nothing of it was run"):
        run(source=str(bert), allow_pickle=True)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1], {"model": {"a": torch.ones(1)}, "ema": {"a": torch.ones(1)}}])
def test_a_pickle_without_one_state_dict_is_refused(run: Run, bert: Path, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "own.pt")

    with pytest.raises(StageError, match=r"mappings of names to tensors; save model\.state_dict\(\) alone"):
        run(source=str(bert), weights=str(tmp_path / "own.pt"), allow_pickle=True)
