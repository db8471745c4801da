"""What a user reads when something is broken, on a real server."""

import json
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from marline.core import (
    ArchiveConfig,
    Config,
    ExportConfig,
    Manifest,
    ParityError,
    StageError,
    WorkerError,
    file_sha256,
    read_config,
    seal,
)
from marline.deploy import Server, content_type_of, deploy, serving

pytestmark = pytest.mark.e2e

MODEL = "digits_cnn"
READY_S = 90.0  # far below: a worker that cannot load must not be waited for


@pytest.fixture(scope="module")
def config() -> Config:
    return read_config([f"model={MODEL}", f"deploy.ready_s={READY_S:g}"]).config


@pytest.fixture(scope="module")
def server(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(config.deploy, tmp_path_factory.mktemp("logs")) as running:
        yield running


def changed(archived: Manifest, folder: Path, name: str, text: Callable[[str], str]) -> Manifest:
    """A whole archive stage, sealed anew, in which one file of the archive is another."""
    out = folder / "archive"
    out.mkdir(parents=True)
    source, file = archived.path(archived.facts["archive"]), out / archived.facts["archive"]
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, text(old.read(entry).decode()) if entry == name else old.read(entry))
    facts = {**archived.facts, "sha256": file_sha256(file)}
    told = ArchiveConfig.model_validate(archived.config)
    return seal(out, model=MODEL, config=told, inputs=[], facts=facts, started=time.monotonic())


def load(server: Server, archived: Manifest, *, batch_size: int = 1, delay_ms: int = 100) -> None:
    archive = archived.path(archived.facts["archive"])
    server.load(archive, MODEL, batch_size=batch_size, max_batch_delay_ms=delay_ms, workers=1)


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_archive_is_refused_before_a_server_is_started(
    damage: str, stage: Callable[[str], Manifest], config: Config, tmp_path: Path
) -> None:
    damaged = changed(stage("archive"), tmp_path, "", str)
    file = damaged.path(damaged.facts["archive"])
    whole = bytearray(file.read_bytes())
    whole[len(whole) // 2] ^= 1
    file.write_bytes(whole[:-100] if damage == "truncated" else whole)

    with pytest.raises(StageError, match=r"digits_cnn\.mar is not the file stage archive of run .* made: its sha256 differs"):
        deploy(MODEL, config.deploy, stage("export"), damaged, tmp_path / "deploy")
    assert not (tmp_path / "logs").exists()


def test_a_handler_that_raises_at_load_ends_with_its_own_traceback_and_is_unregistered(
    stage: Callable[[str], Manifest], server: Server, tmp_path: Path
) -> None:
    line = 'raise RuntimeError("the weights are of another model")'
    broken = changed(
        stage("archive"),
        tmp_path,
        "handler.py",
        lambda text: text.replace("    if not isinstance", f"    {line}\n    if not isinstance", 1),
    )
    began = time.monotonic()

    with pytest.raises(WorkerError) as raised:
        load(server, broken)

    assert time.monotonic() - began < READY_S / 2
    said = str(raised.value)
    assert "Traceback (most recent call last):" in said
    assert "handler.py" in said
    assert line in said
    assert "RuntimeError: the weights are of another model" in said
    assert server.client.describe(MODEL) is None


def test_a_handler_with_a_wrong_import_shows_that_import_error(
    stage: Callable[[str], Manifest], server: Server, tmp_path: Path
) -> None:
    broken = changed(stage("archive"), tmp_path, "handler.py", lambda text: f"import no_such_module\n{text}")

    with pytest.raises(WorkerError, match=r"import no_such_module[\s\S]*ModuleNotFoundError: No module named 'no_such_module'"):
        load(server, broken)
    assert server.client.describe(MODEL) is None


def test_a_poisonous_item_among_eight_is_refused_alone(stage: Callable[[str], Manifest], server: Server) -> None:
    samples = sorted(stage("load").path("sample").iterdir())
    bodies = [(sample.read_bytes(), content_type_of(sample.name)) for sample in samples[:7]]
    bodies.insert(3, (b"\x89PNG\r\n\x1a\nand then nothing of the kind", "image/png"))
    load(server, stage("archive"), batch_size=8, delay_ms=2000)

    with ThreadPoolExecutor(8) as senders:
        replies = list(senders.map(lambda told: server.client.predict(MODEL, *told), bodies))

    assert [200, 200, 200, 400, 200, 200, 200, 200] == [reply.status for reply in replies]
    assert "the image cannot be decoded" in json.loads(replies[3].body)["message"]


def test_an_answer_that_is_not_the_golden_one_names_the_pair_and_the_field(
    stage: Callable[[str], Manifest], config: Config, tmp_path: Path
) -> None:
    exported = stage("export")
    out = tmp_path / "run" / "export"
    shutil.copytree(exported.folder, out)
    golden: dict[str, Any] = json.loads((out / "golden.json").read_text())
    golden["pairs"][2]["answer"]["output"]["probability"] -= 0.25
    (out / "golden.json").write_text(json.dumps(golden))
    told = ExportConfig.model_validate(exported.config)
    wrong = seal(out, model=MODEL, config=told, inputs=[], facts=exported.facts, started=time.monotonic())
    name = golden["pairs"][2]["name"]

    with pytest.raises(ParityError, match=rf"golden answer to {name}: answer\.output\.probability: expected 0\.\d+, got"):
        deploy(MODEL, config.deploy, wrong, stage("archive"), out.parent / "deploy")


def test_a_stage_that_fails_ends_with_its_message_alone(sharing: Any, smoke: Any, quick: tuple[str, ...]) -> None:
    words = [f"model={MODEL}", *quick, "until=export", "export.preserve=[nothing]"]

    failed = sharing.run("pipelines", *words)

    assert 1 == failed.code
    assert failed.err.strip().startswith(
        "pipeline: script: export.preserve names nothing, which the exported module does not have"
    )
    assert "Traceback" not in failed.out + failed.err


def test_a_java_that_is_not_there_is_a_wrong_request(sharing: Any, smoke: Any, quick: tuple[str, ...]) -> None:
    refused = sharing.run("pipelines", f"model={MODEL}", *quick, "until=deploy", "deploy.java_home=/no")

    assert 2 == refused.code
    assert "deploy.java_home=/no: there is no bin/java in it; write deploy.java_home=null" in refused.err
    assert "Traceback" not in refused.err
    assert [] == sharing.servers


def test_a_stage_that_takes_too_long_ends_with_its_server(sharing: Any, smoke: Any, quick: tuple[str, ...]) -> None:
    """Two seconds are enough for no TorchServe."""
    assert 0 == smoke.code, smoke.err

    failed = sharing.run("pipelines", f"model={MODEL}", *quick, "until=deploy", "fresh=deploy", "timeouts_s.deploy=2")

    assert 1 == failed.code
    assert "deploy was not done within timeouts_s.deploy = 2 seconds and was given up; raise that" in failed.err
    assert "Traceback" not in failed.out + failed.err
    assert [] == sharing.servers
