import ast
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import marline.archive
from marline.archive import Serving, describe, extract, from_yaml, read_mar, tuned, version_of, with_version
from marline.core import ArchiveError, Manifest, file_sha256, verify
from marline.handler import EAGER, FakeContext, difference, opened, read_golden
from marline.telemetry import FILE

Build = Callable[..., Manifest]
TASK = Path(__file__).parents[2] / "handler" / "src" / "marline" / "handler" / "image_classification.py"


def test_an_archive_holds_what_serving_needs_and_nothing_else(build: Build, tmp_path: Path) -> None:
    manifest = build(tmp_path)

    file = manifest.path("digits_cnn.mar")
    contents = read_mar(file)
    verify(manifest)
    assert {
        "MAR-INF/MANIFEST.json",
        *("base_handler.py", "batch_facts.py", "body_formats.py", "collation.py", "device_use.py", "eager_model.py"),
        *("emulated_device.py", "explanation.py", "graph_file.py", "method_call.py", "model_loading.py", "one_batch.py"),
        *("open_inference.py", "request_decoding.py"),
        "config.json",
        "golden.json",
        "handler.py",
        "model-config.yaml",
        "model.pt",
        "model.py",
        "tracker.json",
        "marline_tracker.py",
    } == set(contents.sizes)
    assert {
        "modelName": "digits_cnn",
        "handler": "handler.py",
        "serializedFile": "model.pt",
        "modelVersion": "1.3",
    }.items() <= (contents.manifest["model"].items())
    assert {"digits_cnn.mar", "model-config.yaml", "contents.json"} == set(manifest.outputs)
    assert {"archive": file.name, "sha256": file_sha256(file), "size_bytes": file.stat().st_size, "version": "1.3"} == (
        manifest.facts
    )


def test_files_inside_are_byte_for_byte_what_they_were(build: Build, tmp_path: Path) -> None:
    file = build(tmp_path).path("digits_cnn.mar")

    assert (tmp_path / "export" / "model.pt").read_bytes() == extract(file, "model.pt")
    assert FILE.read_bytes() == extract(file, "marline_tracker.py")
    assert (tmp_path / "archive" / "model-config.yaml").read_bytes() == extract(file, "model-config.yaml")


def test_equal_contents_are_equal_bytes(build: Build, tmp_path: Path) -> None:
    one, two = build(tmp_path / "one"), build(tmp_path / "two")

    assert one.facts["sha256"] == two.facts["sha256"]
    assert one.digest == two.digest


def test_the_handler_of_image_classifiers_is_shipped_under_its_own_name(build: Build, tmp_path: Path) -> None:
    contents = read_mar(build(tmp_path, TASK).path("digits_cnn.mar"))

    assert "image_classification.py" == contents.manifest["model"]["handler"]
    assert {"image_classification.py", "base_handler.py"} <= set(contents.sizes)
    assert {"_assemble.py", "_fake.py", "__init__.py"} & set(contents.sizes) == set()


@pytest.mark.parametrize("handler", [None, TASK], ids=["own handler", "the task's handler"])
def test_nothing_that_is_shipped_imports_marline(build: Build, tmp_path: Path, handler: Path | None) -> None:
    manifest = build(tmp_path) if handler is None else build(tmp_path, handler)
    with zipfile.ZipFile(manifest.path("digits_cnn.mar")) as file:
        sources = {name: file.read(name).decode() for name in file.namelist() if name.endswith(".py")}

    imported = {(name, module.split(".")[0]) for name, text in sources.items() for module in _imports(text)}

    assert len(sources) >= 3
    assert set() == {(name, module) for name, module in imported if module == "marline"}
    inside = {name.removesuffix(".py") for name in sources} | {"image_input"}  # there where the handler is for images
    late = {"captum", "safetensors"}  # imported where an explanation is asked for, or such weights are loaded
    assert {"torch", "PIL", "ts"} == {module for _, module in imported} - inside - sys.stdlib_module_names - late
    at_once = {module.split(".")[0] for text in sources.values() for module in _imports(text, late=False)}
    assert set() == late & at_once


def _imports(text: str, *, late: bool = True) -> list[str]:
    nodes = list(ast.walk(ast.parse(text)) if late else ast.parse(text).body)
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return plain + [node.module or "marline" for node in nodes if isinstance(node, ast.ImportFrom)]  # relative: ours


@pytest.mark.parametrize("model", ["digits_cnn", "sam_tiny"])  # with an init function of its own; with a component of its own
def test_without_a_graph_the_archive_carries_the_untracked_model_and_answers_like_it(
    lifecycle: Callable[..., Manifest], tmp_path: Path, model: str
) -> None:
    contents = read_mar(lifecycle(model).path(f"{model}.mar"))

    with zipfile.ZipFile(tmp_path / "archive" / f"{model}.mar") as file:
        file.extractall(tmp_path / "unpacked")
    told = json.loads((tmp_path / "unpacked" / EAGER).read_text())
    assert "model.safetensors" == contents.manifest["model"]["serializedFile"]
    assert {f"{told['base_class'].split('.')[0]}.py", "eager_model.py", EAGER} <= set(contents.sizes)
    assert [] == [name for name in contents.sizes if name == "model.pt" or name.startswith("tracked_")]
    folder = tmp_path / "unpacked"
    context = FakeContext(folder, "model.safetensors")
    pairs = read_golden(folder / "golden.json")
    with opened(folder, Path(contents.manifest["model"]["handler"]).stem) as handler:
        handler.initialize(context)
        answers = [json.loads(handler.handle([{"body": pair.request}], context)[0]) for pair in pairs]
    assert {} == context.statuses
    assert [None] * len(pairs) == [
        difference(pair.answer, answer, atol=1e-5, rtol=1e-4) for pair, answer in zip(pairs, answers, strict=True)
    ]


def test_tuned_changes_the_model_config_and_nothing_else(build: Build, tmp_path: Path) -> None:
    before = build(tmp_path).path("digits_cnn.mar")
    serving = Serving(
        batch_size=8,
        max_batch_delay_ms=5,
        workers=2,
        response_timeout_s=9,
        startup_timeout_s=99,
        job_queue_size=999,
        device="gpu",
        client_timeout_ms=4000,
    )

    sha256 = tuned(before, serving, tmp_path / "tuned.mar")

    assert file_sha256(tmp_path / "tuned.mar") == sha256
    assert serving == from_yaml(read_mar(tmp_path / "tuned.mar").config)
    with zipfile.ZipFile(before) as old, zipfile.ZipFile(tmp_path / "tuned.mar") as new:
        assert old.namelist() == new.namelist()
        assert ["model-config.yaml"] == [name for name in old.namelist() if old.read(name) != new.read(name)]
    assert not [*tmp_path.glob("*.partial")]


def test_tuning_to_what_it_was_gives_the_same_archive(build: Build, tmp_path: Path) -> None:
    before = build(tmp_path).path("digits_cnn.mar")

    assert file_sha256(before) == tuned(before, from_yaml(read_mar(before).config), tmp_path / "tuned.mar")


def test_another_version_changes_the_manifest_and_nothing_else(build: Build, tmp_path: Path) -> None:
    before = build(tmp_path).path("digits_cnn.mar")

    with_version(before, "1.0-0123abcd", tmp_path / "again.mar")

    assert ("1.3", "1.0-0123abcd") == (version_of(before), version_of(tmp_path / "again.mar"))
    with zipfile.ZipFile(before) as old, zipfile.ZipFile(tmp_path / "again.mar") as new:
        assert old.namelist() == new.namelist()
        assert ["MAR-INF/MANIFEST.json"] == [name for name in old.namelist() if old.read(name) != new.read(name)]


def test_a_name_torchserve_would_refuse_is_refused_here(build: Build, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="torch-model-archiver refuses 'two words'"):
        build(tmp_path, model="two words")


def test_an_archive_made_by_the_stock_archiver_can_be_read(build: Build, tmp_path: Path) -> None:
    (tmp_path / "handler.py").write_text("def handle(data, context): ...\n")
    (tmp_path / "model.pt").write_bytes(b"0" * 100_000)
    (tmp_path / "settings.yaml").write_text("minWorkers: 1\n")
    words = "--model-name stock --version 2.0 --serialized-file model.pt --handler handler.py --config-file settings.yaml"
    archiver = Path(sys.executable).with_name("torch-model-archiver")

    subprocess.run([archiver, *words.split()], cwd=tmp_path, check=True, capture_output=True, timeout=60)

    contents = read_mar(tmp_path / "stock.mar")
    assert ("stock", "2.0") == (contents.manifest["model"]["modelName"], contents.manifest["model"]["modelVersion"])
    assert {"minWorkers": 1} == yaml.safe_load(contents.config)
    assert 100_000 == contents.sizes["model.pt"]


def test_the_inspect_command_shows_an_archive_and_refuses_what_is_none(build: Build, tmp_path: Path) -> None:
    file = build(tmp_path).path("digits_cnn.mar")
    (tmp_path / "no.mar").write_text("no archive")
    command = [sys.executable, "-m", "marline.archive"]

    shown = subprocess.run([*command, f"inspect={file}"], capture_output=True, text=True, check=True, timeout=60)
    refused = subprocess.run(
        [*command, f"inspect={tmp_path / 'no.mar'}"], capture_output=True, text=True, check=False, timeout=60
    )

    assert describe(file) == shown.stdout.rstrip("\n")
    assert f"sha256 {file_sha256(file)}" == shown.stdout.splitlines()[-1]
    assert 1 == refused.returncode
    assert refused.stderr.startswith(f"archive: {tmp_path / 'no.mar'} is not a model archive")
    assert "Traceback" not in refused.stderr


def test_public_names() -> None:
    exposed = {name for name in vars(marline.archive) if not name.startswith("_")}

    assert set(marline.archive.__all__) == exposed


def test_a_handler_from_scratch_is_archived_without_a_model_and_without_the_shared_base(
    lifecycle: Callable[..., Manifest],
) -> None:
    contents = read_mar(lifecycle("digits_sklearn").path("digits_sklearn.mar"))

    assert "serializedFile" not in contents.manifest["model"]
    assert {
        "MAR-INF/MANIFEST.json",
        "config.json",
        "golden.json",
        "handler.py",
        "marline_tracker.py",
        "model-config.yaml",
        "tracker.json",
    } == set(contents.sizes)
