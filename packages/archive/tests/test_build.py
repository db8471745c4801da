"""Archives of files of a user's own: what goes in, under which parameter, and what is refused."""

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from marline.archive import build as build_archive
from marline.archive import extract, read_mar, requirements_of
from marline.core import ArchiveError, RequestError, file_sha256
from marline.handler import shared_files

FACTORY = "from base_handler import handler_factory\nfrom model import MyNetwork\n\nhandler = handler_factory(MyNetwork)\n"
FROM_SCRATCH = "class Mine:\n    def initialize(self, context): ...\n    def handle(self, data, context): return data\n"
SHARED = {file.name for file in shared_files({"base_handler"})}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, and the current one: paths are relative, as in a shell."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "handler.py").write_text(FROM_SCRATCH)
    (tmp_path / "handler_model.py").write_text(FACTORY)
    (tmp_path / "model.py").write_text("class MyNetwork: ...\n")
    (tmp_path / "model.pt").write_bytes(b"")
    return tmp_path


def packed(file: Path, mode: str, **files: str) -> Path:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]  # any mode
        for name, text in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return file


def test_a_call_with_every_parameter_of_model_servers(place: Path) -> None:
    packed(
        place / "test.tar.gz", "w", **{"net.py": "class MyNetwork: ...\n", "parts__block.py": "x = 1\n"}
    )  # plain, as its README does
    (place / "config.yaml").write_text("batchSize: 4\nmaxBatchDelay: 10\nsystem:\n  extraFiles: test.tar.gz\nmine: {a: [1]}\n")
    (place / "requirements.txt").write_text("einops==0.8.0\n")

    built = build_archive(
        "tiny",
        version="2.0",
        model_file="handler_model.py",
        config_file="config.yaml",
        requirements_file="requirements.txt",
        checkpoint_file="model.pt",
        extra_files=["test.tar.gz", "model.py"],
    )

    contents = read_mar(built.file)
    assert (Path("tiny.mar"), file_sha256(place / "tiny.mar")) == (built.file, built.sha256)
    assert {
        "modelName": "tiny",
        "serializedFile": "model.pt",
        "handler": "handler_model.py",
        "modelVersion": "2.0",
        "configFile": "model-config.yaml",
    } == contents.manifest["model"]
    assert SHARED | {"handler_model.py", "model.py", "model.pt", "net.py", "parts/block.py", "requirements.txt"} == (
        set(contents.sizes) - {"MAR-INF/MANIFEST.json", "model-config.yaml"}
    )
    told = yaml.safe_load(contents.config)
    assert {"batchSize": 4, "maxBatchDelay": 10, "mine": {"a": [1]}, "jobQueueSize": 1000}.items() <= told.items()
    assert {"extraFiles": "test.tar.gz"} == told["system"]
    assert any("carried but not installed" in warning for warning in built.warnings)


def test_a_waveglow_shaped_call_of_torch_model_archiver(place: Path) -> None:
    (place / "waveglow_model.py").write_text("class WaveGlow: ...\nclass Invertible: ...\n")
    (place / "waveglow_handler.py").write_text(FROM_SCRATCH)
    (place / "nvidia_tacotron2.pth").write_bytes(b"PK\x03\x04 weights are zips and stay what they are")
    with zipfile.ZipFile(place / "tacotron.zip", "w") as archive:
        archive.writestr("tacotron2/__init__.py", "")
        archive.writestr("tacotron2/model.py", "x = 1\n")

    built = build_archive(
        model_name="waveglow_synthesizer",
        version="1.0",
        architecture_file="waveglow_model.py",
        serialized_file="model.pt",
        handler="waveglow_handler.py",
        extra_files=["tacotron.zip", "nvidia_tacotron2.pth"],
    )

    contents = read_mar(built.file)
    assert {"modelFile": "waveglow_model.py", "handler": "waveglow_handler.py"}.items() <= contents.manifest["model"].items()
    assert {"tacotron.zip", "tacotron2/__init__.py", "tacotron2/model.py", "nvidia_tacotron2.pth"} <= set(contents.sizes)
    assert set() == SHARED & set(contents.sizes)
    assert (place / "tacotron.zip").read_bytes() == extract(built.file, "tacotron.zip")


def test_equal_inputs_are_equal_bytes_wherever_they_lie(place: Path) -> None:
    (place / "parts").mkdir()
    for name in ("b.json", "a.json"):
        (place / "parts" / name).write_text(name)
    one = build_archive("tiny", model_file="handler_model.py", extra_files=["parts", "model.py"])
    for file in place.glob("*.py"):
        os.utime(file, (1, 1))
    (place / "out").mkdir()
    (place / "parts" / "a.json").unlink()
    (place / "parts" / "a.json").write_text("a.json")
    two = build_archive(
        "tiny", model_file=place / "handler_model.py", extra_files=[place / "model.py", place / "parts"], export_path="out"
    )

    assert one.sha256 == two.sha256


def test_the_least_that_can_be_said(place: Path) -> None:
    built = build_archive("tiny", handler="handler.py")

    assert {"handler.py", "model-config.yaml", "MAR-INF/MANIFEST.json"} == set(read_mar(built.file).sizes)
    assert "serializedFile" not in read_mar(built.file).manifest["model"]
    assert () == built.warnings


@pytest.mark.parametrize("told", ["handler.py:Mine", "handler:Mine", "handler"])
def test_a_handler_is_named_with_and_without_its_ending(told: str, place: Path) -> None:
    assert "handler.py" == read_mar(build_archive("tiny", handler=told).file).manifest["model"]["handler"]


def test_a_stock_handler_brings_no_file_and_wants_weights(place: Path) -> None:
    built = build_archive("tiny", handler="image_classifier")

    assert {"model-config.yaml", "MAR-INF/MANIFEST.json"} == set(read_mar(built.file).sizes)
    assert ("TorchServe's own image_classifier needs weights, and there is no serializedFile",) == built.warnings


def test_of_several_classes_one_serves(place: Path) -> None:
    (place / "handler.py").write_text(f"{FROM_SCRATCH}class Second(Mine): ...\n")

    contents = read_mar(build_archive("tiny", handler="handler.py").file)

    assert "marline_entry.py" == contents.manifest["model"]["handler"]
    assert b"import_module('handler').Mine" in extract(Path("tiny.mar"), "marline_entry.py")


def test_a_helper_that_imports_the_base_brings_it(place: Path) -> None:
    (place / "handler.py").write_text("from made import Mine\n\n\nclass Handler(Mine): ...\n")
    (place / "made.py").write_text("from image_input import prepare\nfrom base_handler import SharedHandler as Mine\n")

    assert SHARED | {"image_input.py"} <= set(
        read_mar(build_archive("tiny", handler="handler.py", extra_files=["made.py"]).file).sizes
    )


def test_a_base_handler_of_ones_own_is_kept(place: Path) -> None:
    (place / "base_handler.py").write_text("def handler_factory(function): ...\n")

    contents = read_mar(build_archive("tiny", handler="handler_model.py", extra_files=["base_handler.py", "model.py"]).file)

    assert {"base_handler.py"} == SHARED & set(contents.sizes)
    assert (place / "base_handler.py").stat().st_size == contents.sizes["base_handler.py"]


def test_a_file_named_like_one_of_the_base_is_refused(place: Path) -> None:
    (place / "collation.py").write_text("")

    with pytest.raises(RequestError, match=r"would both be collation\.py.*shared base handler"):
        build_archive("tiny", model_file="handler_model.py", extra_files=["collation.py"])


def test_a_folder_comes_as_with_torch_model_archiver_and_a_package_as_one(place: Path) -> None:
    for name in ("data/labels/index.json", "data/top.json", "pack/__init__.py", "pack/sub/x.py", "data/__pycache__/x.pyc"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("")

    contents = read_mar(build_archive("tiny", handler="handler.py", extra_files=["data", "pack"]).file)

    assert {"labels/index.json", "top.json", "pack/__init__.py", "pack/sub/x.py"} <= set(contents.sizes)
    assert not [name for name in contents.sizes if "pycache" in name]


def test_the_same_file_twice_is_one(place: Path) -> None:
    packed(place / "code.tar", "w", **{"handler_model.py": FACTORY, "model.py": "class MyNetwork: ...\n"})

    contents = read_mar(build_archive("tiny", model_file="handler_model.py", extra_files=["code.tar", "model.py"]).file)

    assert {"handler_model.py", "model.py", "code.tar"} <= set(contents.sizes)


def test_paths_with_spaces_and_other_letters(place: Path) -> None:
    folder = place / "my földer"
    folder.mkdir()
    (folder / "my data.json").write_text("{}")
    (place / "handler.py").rename(folder / "handler.py")

    built = build_archive(
        "tiny", handler=folder / "handler.py", extra_files=[folder / "my data.json"], export_path=folder / "new" / "out"
    )

    assert folder / "new" / "out" / "tiny.mar" == built.file
    assert "my data.json" in read_mar(built.file).sizes


def test_requirements_are_installed_on_request_only(place: Path) -> None:
    (place / "needs.txt").write_text("# ours\neinops==0.8.0  # for shapes\n")

    off = build_archive("off", handler="handler.py", requirements_file="needs.txt")
    on = build_archive("on", handler="handler.py", requirements_file="needs.txt", requirements="install")

    assert (None, "requirements.txt") == (requirements_of(off.file), requirements_of(on.file))
    assert (place / "needs.txt").read_bytes() == extract(off.file, "requirements.txt")
    assert b"einops==0.8.0\n" == extract(on.file, "requirements.txt")
    assert "carried but not installed: install it where the server runs, or build with requirements=install" in off.warnings[0]
    assert "is installed at every registration" in on.warnings[0]


def test_nothing_to_install_asks_for_nothing(place: Path) -> None:
    (place / "needs.txt").write_text("# nothing\n")

    assert (
        requirements_of(build_archive("on", handler="handler.py", requirements_file="needs.txt", requirements="install").file)
        is None
    )


def test_a_pickled_checkpoint_is_said_to_be_one(place: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, place / "model.pt")
    old = place / "old.pt"
    torch.save({"weight": torch.zeros(1)}, old, _use_new_zipfile_serialization=False)
    scripted = place / "scripted.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), scripted)

    said = [
        build_archive("tiny", handler="handler.py", checkpoint_file=file).warnings
        for file in ("model.pt", "old.pt", "scripted.pt")
    ]

    assert [1, 1, 0] == [len(warnings) for warnings in said]
    assert said[0][0].startswith("model.pt is a pickle")


def test_the_runtime_of_the_other_backend_is_passed_on_and_warned_of(place: Path) -> None:
    (place / "libmnist_handler.so").write_bytes(b"\x7fELF")

    built = build_archive("tiny", handler="libmnist_handler:MnistHandler", serialized_file="model.pt", runtime="LSP")

    contents = read_mar(built.file)
    assert ("LSP", "libmnist_handler:MnistHandler") == (contents.manifest["runtime"], contents.manifest["model"]["handler"])
    assert "libmnist_handler.so" in contents.sizes
    assert "C++ backend" in built.warnings[0]


@pytest.mark.parametrize("runtime", ["python", "python3"])
def test_the_runtime_is_torch_model_archivers(runtime: str, place: Path) -> None:
    assert runtime == read_mar(build_archive("tiny", handler="handler.py", runtime=runtime).file).manifest["runtime"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no handler": ({}, "no handler is named"),
    "two handlers": ({"model_file": "handler.py", "handler": "handler.py"}, "two names of one thing"),
    "two checkpoints": (
        {"handler": "handler.py", "checkpoint_file": "model.pt", "serialized_file": "model.pt"},
        "two names of one thing",
    ),
    "a name with spaces": ({"model_name": "two words", "handler": "handler.py"}, "model_name=two words"),
    "a name that leaves": ({"model_name": "../evil", "handler": "handler.py"}, "model_name=../evil"),
    "a name of TorchServe's own": ({"model_name": "tokenizer", "handler": "handler.py"}, "tokenizer cannot be managed"),
    "a version that leaves": ({"version": "1/2", "handler": "handler.py"}, "version=1/2"),
    "another runtime": ({"runtime": "python2", "handler": "handler.py"}, "runtime=python2 is not known"),
    "another mode": ({"requirements": "on", "handler": "handler.py"}, "write off or install"),
    "a missing handler": ({"handler": "handlr.py"}, "there is no file handlr.py"),
    "nearly a stock handler": ({"handler": "image_clasifier"}, "did you mean image_classifier"),
    "an unknown entry": ({"handler": "handler.py:Mien"}, "did you mean 'Mine'"),
    "a missing config": ({"handler": "handler.py", "config_file": "no.yaml"}, "config_file=no.yaml: there is no such file"),
    "a missing extra": ({"handler": "handler.py", "extra_files": ["no.py"]}, "extra_files=no.py: there is no such file"),
    "a missing checkpoint": ({"handler": "handler.py", "checkpoint_file": "no.pt"}, "checkpoint_file=no.pt"),
    "install without a file": ({"handler": "handler.py", "requirements": "install"}, "without a requirements_file"),
    "two files of one name": (
        {"handler": "handler.py", "extra_files": ["model.py", "other/model.py"]},
        "would both be model.py",
    ),
    "two names in case": ({"handler": "handler.py", "extra_files": ["model.py", "other/Model.py"]}, "would both be Model.py"),
    "a module hidden": ({"handler": "json.py"}, "json.py would take the place of the module json"),
    "an extra file that is none": (
        {"handler": "handler.py", "config_file": "extra.yaml"},
        "test.tar.gz is not among extra_files",
    ),
    "a folder that is a file": ({"handler": "handler.py", "export_path": "model.py"}, "export_path=model.py is no folder"),
    "a config near miss": ({"handler": "handler.py", "config_file": "near.yaml"}, "did you mean batchSize"),
}


@pytest.mark.parametrize(("told", "why"), REFUSED.values(), ids=list(REFUSED))
def test_what_cannot_be_built_is_refused_with_the_remedy(told: dict[str, Any], why: str, place: Path) -> None:
    (place / "other").mkdir()
    (place / "other" / "model.py").write_text("another")
    (place / "other" / "Model.py").write_text("")
    (place / "json.py").write_text(FROM_SCRATCH)
    (place / "extra.yaml").write_text("system: {extraFiles: test.tar.gz}")
    (place / "near.yaml").write_text("batchsize: 3")

    with pytest.raises(RequestError) as refused:
        build_archive(**{"model_name": "tiny", **told})

    assert why in str(refused.value)
    assert 2 == refused.value.exit_code
    assert [] == [file for file in place.rglob("*") if file.suffix in {".mar", ".partial"}]


@pytest.mark.parametrize("name", ["model-config.yaml", "MAR-INF/MANIFEST.json", "Model-Config.yaml"])
def test_an_extra_file_cannot_take_the_place_of_what_we_write(name: str, place: Path) -> None:
    packed(place / "code.tar", "w", **{name: "x"})

    with pytest.raises(ArchiveError, match=r"two entries are called|one name where case"):
        build_archive("tiny", handler="handler.py", extra_files=["code.tar"])
    assert [] == list(place.glob("*.partial"))


def test_a_hostile_extra_archive_leaves_nothing_behind(place: Path) -> None:
    packed(place / "code.tar", "w", **{"../evil.py": "x"})

    with pytest.raises(ArchiveError, match=r"code\.tar: the entry '\.\./evil\.py'"):
        build_archive("tiny", handler="handler.py", extra_files=["code.tar"])
    assert not (place.parent / "evil.py").exists()
    assert [] == list(place.glob("tiny*"))


def test_an_extra_file_that_hides_a_module_is_warned_of(place: Path) -> None:
    (place / "random.py").write_text("x = 1\n")
    (place / "broken.py").write_text("print 'python 2'\n")

    built = build_archive("tiny", handler="handler.py", extra_files=["random.py", "broken.py"])

    assert "random.py takes the place of Python's own module random" in built.warnings[0]
    assert "broken.py, line 1" in built.warnings[1]


LIMITED = """
import resource
from marline.archive import build
from marline.core import ArchiveError

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    build("tiny", handler="handler.py", checkpoint_file="model.pt", export_path="out")
except ArchiveError as error:
    print(error.exit_code, error)
"""


@pytest.mark.parametrize("there", [False, True], ids=["a new archive", "one that is there"])
def test_a_full_disk_is_an_error_and_leaves_what_was_there(there: bool, place: Path) -> None:
    (place / "out").mkdir()
    (place / "model.pt").write_bytes(bytes(1_000_000))
    if there:
        (place / "out" / "tiny.mar").write_text("the old one")

    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.startswith("1 out/tiny.mar cannot be written: ")
    assert "File too large" in done.stdout
    assert (["tiny.mar"] if there else []) == [file.name for file in (place / "out").iterdir()]
    assert not there or (place / "out" / "tiny.mar").read_text() == "the old one"


def test_the_stage_takes_extra_files_and_requirements_too(build: Callable[..., Any], place: Path) -> None:
    (place / "needs.txt").write_text("einops==0.8.0\n")
    packed(place / "code.tar.gz", "w:gz", **{"helpers__shapes.py": "x = 1\n"})

    manifest = build(place, extra_files=("code.tar.gz",), requirements_file="needs.txt", requirements="install")

    file = manifest.path("digits_cnn.mar")
    assert {"helpers/shapes.py", "code.tar.gz", "requirements.txt"} <= set(read_mar(file).sizes)
    assert "requirements.txt" == requirements_of(file)


def test_the_same_code_as_torch_model_archiver_can_be_served(place: Path) -> None:
    """Everything it writes into a manifest is there, with the same keys."""
    archiver = [sys.executable, "-m", "model_archiver.model_packaging"]
    words = "--model-name theirs --version 1.0 --serialized-file model.pt --handler handler.py --model-file model.py"
    subprocess.run([*archiver, *words.split()], check=True, capture_output=True, timeout=60)

    ours = build_archive(
        "ours", handler="handler.py", serialized_file="model.pt", architecture_file="model.py", runtime="python"
    )
    told, theirs = read_mar(ours.file).manifest, read_mar(Path("theirs.mar")).manifest

    assert {**theirs["model"], "modelName": "ours", "configFile": "model-config.yaml"} == told["model"]
    assert theirs.keys() == told.keys()
    assert theirs["runtime"] == told["runtime"]
