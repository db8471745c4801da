import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import marline.wrap
from marline.core import Manifest, RequestError, StageError, WrapConfig, seal, verify
from marline.telemetry import FILE
from marline.wrap import wrap
from marline.wrap._names import names
from marline.wrap._plan import without_place

Make = Callable[..., Manifest]
Configure = Callable[..., WrapConfig]


def test_the_repository_is_complete_and_its_manifest_names_the_classes(loaded: Make, config: Configure, tmp_path: Path) -> None:
    manifest = wrap("tiny", config(), loaded(tmp_path), tmp_path / "wrap")

    verify(manifest)
    assert {
        f"repository/{name}"
        for name in (
            "README.md",
            "config.json",
            "configuration_tiny.py",
            "marline_tracker.py",
            "model.safetensors",
            "modeling_tiny.py",
            "requirements.txt",
            "source_tiny.py",
            "tracked_tiny.py",
            "tracker.json",
        )
    } == set(manifest.outputs)
    assert {
        "kind": "module",
        "task": "image-classification",
        "base_class": "modeling_tiny.TinyForImageClassification",
        "tracked_class": "tracked_tiny.TinyForImageClassification",
        "auto_class": "AutoModelForImageClassification",
        "exported_module": "model",
        "methods": ["forward"],
        "collector_url": None,
        "requirements": manifest.facts["requirements"],
    } == manifest.facts
    assert ["torch", "transformers"] == [line.partition("==")[0] for line in manifest.facts["requirements"]]


def test_the_tracker_is_a_byte_copy_with_its_settings(loaded: Make, config: Configure, tmp_path: Path) -> None:
    told = config(collector_url="http://127.0.0.1:8000/reports/tiny", detail="full", sample_rate=0.5)
    before = loaded(tmp_path)

    repository = wrap("tiny", told, before, tmp_path / "wrap").path("repository")

    assert FILE.read_bytes() == (repository / "marline_tracker.py").read_bytes()
    settings = {"collector_url": told.collector_url, "model": "tiny", "detail": "full", "sample_rate": 0.5}
    assert {**settings, "version": before.digest[:12]} == json.loads((repository / "tracker.json").read_text())


def test_weights_are_the_checkpoints_bit_for_bit_in_its_shards(loaded: Make, config: Configure, tmp_path: Path) -> None:
    before = loaded(tmp_path)
    whole = before.path("checkpoint/model.safetensors")
    whole.rename(whole.with_name("model-00001-of-00001.safetensors"))
    kept = load_file(whole.with_name("model-00001-of-00001.safetensors"))
    index = {"weight_map": dict.fromkeys(kept, "model-00001-of-00001.safetensors")}
    whole.with_name("model.safetensors.index.json").write_text(json.dumps(index))

    repository = wrap("tiny", config(), before, tmp_path / "wrap").path("repository")

    made = load_file(repository / "model-00001-of-00001.safetensors")
    assert {f"model.{key}": value.numpy().tobytes() for key, value in kept.items()} == {
        key: value.numpy().tobytes() for key, value in made.items()
    }
    assert set(made) == set(json.loads((repository / "model.safetensors.index.json").read_text())["weight_map"])


def test_only_the_auto_classes_that_keep_their_word_are_mapped(loaded: Make, config: Configure, tmp_path: Path) -> None:
    repository = wrap("swin", config(), loaded(tmp_path), tmp_path / "wrap").path("repository")

    told = json.loads((repository / "config.json").read_text())
    assert ["SwinForImageClassification"] == told["architectures"]
    assert "marline_swin" == told["model_type"]
    assert {
        "AutoConfig": "configuration_swin.MarlineSwinConfig",
        "AutoModelForImageClassification": "tracked_swin.SwinForImageClassification",
    } == told["auto_map"]


@pytest.mark.parametrize(
    ("source", "expression"),
    [
        ("torchvision:resnet18", 'get_model("resnet18", weights=None, **config.init_kwargs)'),
        (
            "torchvision:lraspp_mobilenet_v3_large",
            'get_model("lraspp_mobilenet_v3_large", weights=None, **{"weights_backbone": None, **config.init_kwargs})',
        ),
    ],
)
def test_weights_of_others_are_never_fetched(
    loaded: Make, config: Configure, tmp_path: Path, source: str, expression: str
) -> None:
    """A segmenter of torchvision would download its backbone otherwise."""
    made = loaded(tmp_path, source="torchvision:resnet18")
    facts = {**made.facts, "source": source, "task": "image-segmentation"}
    made = seal(tmp_path / "load", model="net", config=config(), inputs=[], facts=facts, started=0.0)

    repository = wrap("net", config(), made, tmp_path / "wrap").path("repository")

    assert expression in (repository / "modeling_net.py").read_text()
    assert {"pillow", "torch", "torchvision", "transformers"} == set(
        re.findall(r"^(\w+)==", (repository / "requirements.txt").read_text(), re.MULTILINE)
    )


def test_torchscript_passes_through_and_says_so(config: Configure, tmp_path: Path) -> None:
    for folder in ("load/checkpoint", "wrap"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "load/checkpoint/model.pt").write_bytes(b"a graph")
    (tmp_path / "load/checkpoint/config.json").write_text('{"source": "torchscript:/home/me/model.pt"}')
    facts = {
        "kind": "torchscript",
        "source": "torchscript:/home/me/model.pt",
        "task": "voice-activity-detection",
        "parameters": 3,
    }
    facts |= {"weights": {"kind": "published", "detail": "model.pt"}, "init_kwargs": {}, "input": "audio"}
    made = seal(tmp_path / "load", model="vad", config=config(), inputs=[], facts=facts, started=0.0)
    address = "http://127.0.0.1:8000/reports/vad"

    manifest = wrap("vad", config(collector_url=address), made, tmp_path / "wrap")

    names = {"README.md", "config.json", "model.pt", "requirements.txt", "tracker.json"}
    assert {f"repository/{name}" for name in names} == set(manifest.outputs)
    assert b"a graph" == manifest.path("repository/model.pt").read_bytes()
    assert ("torchscript", None) == (manifest.facts["kind"], manifest.facts["base_class"])
    assert "there is no Python class to subclass" in manifest.facts["note"]
    card = manifest.path("repository/README.md").read_text()
    assert manifest.facts["note"] in card
    assert "/home/me" not in card + manifest.path("repository/config.json").read_text()
    assert f"reports its requests to `{json.dumps(address)}`" in card
    with pytest.raises(RequestError, match="TorchScript is a finished graph"):
        wrap("vad", config(methods=("speak",)), made, tmp_path / "wrap")


def test_the_card_marks_random_weights_and_says_how_to_opt_out(loaded: Make, config: Configure, tmp_path: Path) -> None:
    told = config(collector_url="http://127.0.0.1:8000/reports/tiny", detail="full")

    card = wrap("tiny", told, loaded(tmp_path), tmp_path / "wrap").path("repository/README.md").read_text()

    assert card.startswith('---\nlibrary_name: transformers\npipeline_tag: "image-classification"\n')
    for words in ("RANDOM WEIGHTS", told.collector_url, "traceback", "`full`", "DO_NOT_TRACK=1", "MARLINE_TELEMETRY=off"):
        assert str(words) in card


@pytest.mark.parametrize(
    ("told", "published"),
    [
        ("/home/me/bert", "bert"),
        ("python:/home/me/model.py:make", "python:model.py:make"),
        ("published with /home/me/bert, pickled", "published with bert, pickled"),
        ("python:models/tiny/model.py:make", "python:models/tiny/model.py:make"),
        ("./folder/bert", "./folder/bert"),
        ("hf:me/bert@main", "hf:me/bert@main"),
        ("package:weights/model", "package:weights/model"),
        ("no answer of https://hub/api", "no answer of https://hub/api"),
    ],
)
def test_what_is_published_does_not_tell_where_files_were(told: str, published: str) -> None:
    assert published == without_place(told)


def test_the_card_of_a_silent_model_says_so(loaded: Make, config: Configure, tmp_path: Path) -> None:
    card = wrap("tiny", config(), loaded(tmp_path), tmp_path / "wrap").path("repository/README.md").read_text()

    assert "nothing is ever sent" in card


def test_code_that_others_cannot_import_is_refused(loaded: Make, config: Configure, tmp_path: Path) -> None:
    before = loaded(tmp_path)
    source = before.path("checkpoint/source.py")
    source.write_text("import my_other_file\n" + source.read_text())

    with pytest.raises(StageError, match=r"source_tiny.py imports 'my_other_file'.*one source file"):
        wrap("tiny", config(), before, tmp_path / "wrap")

    assert [] == list((tmp_path / "wrap").iterdir())


def test_methods_of_a_plain_module_are_refused(loaded: Make, config: Configure, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"wrap.methods=\['speak'\]: a plain torch module has forward alone"):
        wrap("tiny", config(methods=("speak",)), loaded(tmp_path), tmp_path / "wrap")


def test_an_address_the_tracker_would_not_take_is_refused(loaded: Make, config: Configure, tmp_path: Path) -> None:
    told = config(collector_url="http://host:99999/x")

    with pytest.raises(RequestError, match=r"wrap.collector_url=http://host:99999/x is no http"):
        wrap("tiny", told, loaded(tmp_path), tmp_path / "wrap")


@given(model=st.text(max_size=30))
def test_any_name_becomes_names_that_python_takes(model: str) -> None:
    called = names(model)

    assert all(name.isidentifier() for name in (f"modeling_{called.stem}", called.config, called.camel))


def test_public_names() -> None:
    public = {name for name in vars(marline.wrap) if not name.startswith("_")} - {"components"}  # a module, copied whole

    assert sorted(public) == sorted(marline.wrap.__all__)
