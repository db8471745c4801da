import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import marline.wrap
from marline.core import Manifest, RequestError, StageError, WrapConfig, verify
from marline.telemetry import FILE
from marline.wrap import wrap
from marline.wrap._names import names

Make = Callable[..., Manifest]
SILENT = WrapConfig(collector_url=None, detail="minimal")


def test_the_repository_is_complete_and_its_manifest_names_the_classes(loaded: Make, tmp_path: Path) -> None:
    manifest = wrap("tiny", SILENT, loaded(tmp_path), tmp_path / "wrap")

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
        "base_class": "modeling_tiny.TinyForImageClassification",
        "tracked_class": "tracked_tiny.TrackedTinyForImageClassification",
        "auto_class": "AutoModelForImageClassification",
        "exported_module": "model",
        "collector_url": None,
        "requirements": manifest.facts["requirements"],
    } == manifest.facts
    assert ["torch", "transformers"] == [line.partition("==")[0] for line in manifest.facts["requirements"]]


def test_the_tracker_is_a_byte_copy_with_its_settings(loaded: Make, tmp_path: Path) -> None:
    config = WrapConfig(collector_url="http://127.0.0.1:8000/reports/tiny", detail="full")

    repository = wrap("tiny", config, loaded(tmp_path), tmp_path / "wrap").path("repository")

    assert FILE.read_bytes() == (repository / "marline_tracker.py").read_bytes()
    told = json.loads((repository / "tracker.json").read_text())
    assert {"collector_url": config.collector_url, "model": "tiny", "detail": "full"} == told


def test_weights_are_the_checkpoints_bit_for_bit(loaded: Make, tmp_path: Path) -> None:
    before = loaded(tmp_path)

    manifest = wrap("tiny", SILENT, before, tmp_path / "wrap")

    kept = load_file(before.path("checkpoint/model.safetensors"))
    made = load_file(manifest.path("repository/model.safetensors"))
    assert {f"model.{key}": value.numpy().tobytes() for key, value in kept.items()} == {
        key: value.numpy().tobytes() for key, value in made.items()
    }


def test_only_the_auto_classes_that_keep_their_word_are_mapped(loaded: Make, tmp_path: Path) -> None:
    repository = wrap("swin", SILENT, loaded(tmp_path), tmp_path / "wrap").path("repository")

    config = json.loads((repository / "config.json").read_text())
    assert ["SwinForImageClassification"] == config["architectures"]
    assert "marline_swin" == config["model_type"]
    assert {
        "AutoConfig": "configuration_swin.MarlineSwinConfig",
        "AutoModelForImageClassification": "tracked_swin.TrackedSwinForImageClassification",
    } == config["auto_map"]


def test_the_card_marks_random_weights_and_says_how_to_opt_out(loaded: Make, tmp_path: Path) -> None:
    config = WrapConfig(collector_url="http://127.0.0.1:8000/reports/tiny", detail="full")

    card = wrap("tiny", config, loaded(tmp_path), tmp_path / "wrap").path("repository/README.md").read_text()

    assert card.startswith('---\nlibrary_name: transformers\npipeline_tag: "image-classification"\n')
    for words in ("RANDOM WEIGHTS", config.collector_url, "traceback", "DO_NOT_TRACK=1", "MARLINE_TELEMETRY=off"):
        assert str(words) in card


def test_the_card_of_a_silent_model_says_so(loaded: Make, tmp_path: Path) -> None:
    card = wrap("tiny", SILENT, loaded(tmp_path), tmp_path / "wrap").path("repository/README.md").read_text()

    assert "nothing is ever sent" in card


def test_code_that_others_cannot_import_is_refused(loaded: Make, tmp_path: Path) -> None:
    before = loaded(tmp_path)
    source = before.path("checkpoint/source.py")
    source.write_text("import my_other_file\n" + source.read_text())

    with pytest.raises(StageError, match=r"source_tiny.py imports 'my_other_file'.*one source file"):
        wrap("tiny", SILENT, before, tmp_path / "wrap")


def test_an_address_the_tracker_would_not_take_is_refused(loaded: Make, tmp_path: Path) -> None:
    config = WrapConfig(collector_url="http://host:99999/x", detail="minimal")

    with pytest.raises(RequestError, match=r"wrap.collector_url=http://host:99999/x is no http"):
        wrap("tiny", config, loaded(tmp_path), tmp_path / "wrap")


@given(model=st.text(max_size=30))
def test_any_name_becomes_names_that_python_takes(model: str) -> None:
    called = names(model)

    assert all(name.isidentifier() for name in (f"modeling_{called.stem}", called.config, called.base, called.tracked))


def test_public_names() -> None:
    assert sorted(name for name in vars(marline.wrap) if not name.startswith("_")) == sorted(marline.wrap.__all__)
