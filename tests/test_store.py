"""Stages and runs in a store: on a folder, in memory, and on servers that refuse, lie or say nothing."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore
from rich.console import Console as Terminal

from marline.core import STAGES, Manifest, Section, StageError, accelerator_of, project_root, read_config, seal
from pipelines import fetch, tasks
from pipelines.console import Console, Line
from pipelines.store import Store, by_key, opened

RUN, LATER = "20260101-000000-0000", "20260102-000000-0000"
FILES = {"made.txt": "what it made", "deep/er/weights.bin": "w" * 100_000, "empty": ""}
SECRETS = {"AWS_ACCESS_KEY_ID": "AKIDNEVERSHOWN", "AWS_SECRET_ACCESS_KEY": "SecretNeverShown", "AWS_REGION": "eu-west-1"}
BODY = b"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIDNEVERSHOWN SecretNeverShown</AWSAccessKeyId></Error>"
WAIT_S = 20.0


def made(folder: Path, files: dict[str, str] | None = None) -> Manifest:
    """A finished stage of the model tiny in a run's folder."""
    for name, text in (FILES if files is None else files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return seal(folder, model="tiny", config=Section(), inputs=[], facts={"answer": 42}, started=time.monotonic())


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    folder = tmp_path / "shelf"
    folder.mkdir()
    return folder


@pytest.fixture
def store(shelf: Path) -> Store:
    found = opened(f"file://{shelf}")
    assert found is not None
    return found


def objects(shelf: Path) -> dict[str, Path]:
    """The objects of a store that is a folder, by sha256."""
    return {f"{file.parent.name}{file.name}": file for file in shelf.glob("sha256/*/*")}


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def test_a_stage_comes_back_as_it_was_and_nothing_else_stays(tmp_path: Path, store: Store, shelf: Path) -> None:
    stage, out = made(tmp_path / "a" / RUN / "load"), tmp_path / "b" / LATER / "load"
    store.send(stage, by_key("load", "k"))

    found = store.fetch(by_key("load", "k"), out, "tiny")

    assert found is not None
    assert (stage.model_copy(update={"folder": out.resolve()}), RUN) == (found, found.run)
    assert FILES == {name: (out / name).read_text() for name in FILES}
    assert ["load"] == [path.name for path in out.parent.iterdir()]
    assert {digest(text) for text in FILES.values()} == objects(shelf).keys()


def test_what_is_not_there_is_none_and_leaves_nothing(tmp_path: Path, store: Store) -> None:
    assert None is store.fetch(by_key("load", "k"), tmp_path / "b" / RUN / "load", "tiny")
    assert not store.holds(by_key("load", "k"))
    assert [] == [*(tmp_path / "b" / RUN).iterdir()]


def test_equal_files_go_up_once(tmp_path: Path, store: Store, shelf: Path) -> None:
    store.send(made(tmp_path / RUN / "load", {"a": "same", "b": "same"}), by_key("load", "k"))
    before = objects(shelf)[digest("same")].stat()
    store.send(made(tmp_path / LATER / "load", {"c": "same"}), by_key("load", "l"))

    assert 1 == len(objects(shelf))
    assert before.st_mtime_ns == objects(shelf)[digest("same")].stat().st_mtime_ns


@pytest.mark.parametrize("harm", ["other bytes", "shorter", "longer", "gone"])
def test_a_damaged_object_is_told_and_replaced_by_the_next_who_makes_it(
    tmp_path: Path, store: Store, shelf: Path, harm: str
) -> None:
    stage, out = made(tmp_path / RUN / "load"), tmp_path / "b" / RUN / "load"
    store.send(stage, by_key("load", "k"))
    text = FILES["deep/er/weights.bin"]
    file = objects(shelf)[digest(text)]
    harmed = {"other bytes": "x" * len(text), "shorter": text[1:], "longer": text * 1000}
    file.write_text(harmed[harm]) if harm in harmed else file.unlink()

    with pytest.raises(StageError, match=r"sha256/../\w{62} (in file:.* is damaged|is missing)"):
        store.fetch(by_key("load", "k"), out, "tiny")

    assert [] == [*out.parent.iterdir()]
    store.send(stage, by_key("load", "k"))
    assert text == file.read_text()
    assert store.fetch(by_key("load", "k"), out, "tiny")


def test_an_upload_that_breaks_off_leaves_no_key(tmp_path: Path, store: Store, shelf: Path) -> None:
    stage = made(tmp_path / RUN / "load", {"a": "first", "b": "second"})
    (stage.folder / "b").unlink()

    with pytest.raises(StageError):
        store.send(stage, by_key("load", "k"))

    assert not store.holds(by_key("load", "k"))
    assert {digest("first")} == objects(shelf).keys()


def test_many_writers_at_once_do_not_hurt_each_other(tmp_path: Path, store: Store) -> None:
    stages = [made(tmp_path / f"2026010{day}-000000-0000" / "load", {"both": "same", "own": str(day)}) for day in range(1, 9)]
    with ThreadPoolExecutor(8) as writers:
        list(writers.map(lambda stage: store.send(stage, by_key("load", "k")), stages))

    found = store.fetch(by_key("load", "k"), tmp_path / "b" / LATER / "load", "tiny")

    assert found is not None
    assert {stage.run: stage.digest for stage in stages}[found.run] == found.digest


HOSTILE = st.one_of(
    st.sampled_from(["/tmp/x", "../x", "a/../../x", "a//b", "./a", ".", "", "a/", "a\0b", "a\nb", "\ud800", "manifest.json"]),  # noqa: S108
    st.text(max_size=12),
    st.lists(st.sampled_from(["..", ".", "", "a", "~", "C:\\x"]), max_size=4).map("/".join),
)


@settings(deadline=None, max_examples=200)
@given(names=st.lists(HOSTILE, min_size=1, max_size=4), size=st.sampled_from([4, 0, -1, 10**30]))
def test_no_manifest_from_a_store_writes_outside_its_folder(names: list[str], size: int) -> None:
    """Whatever it names is either refused, or lies in the folder with the bytes it was named by."""
    store, hashed = Store("memory", MemoryStore()), digest("evil")
    outputs = {name: {"sha256": hashed, "size_bytes": size} for name in names}
    told = {"stage": "load", "model": "tiny", "run": RUN, "outputs": outputs, "inputs": {}, "config": {}, "facts": {}}
    store.objects.put(f"sha256/{hashed[:2]}/{hashed[2:]}", b"evil")
    store.objects.put("keys/load/k.json", json.dumps(told | {"versions": {}, "seconds": 1.0}).encode())
    with tempfile.TemporaryDirectory() as place:
        run = Path(place, "artifacts", "tiny", RUN)
        try:
            found = store.fetch("keys/load/k.json", run / "load", "tiny")
        except StageError:
            found = None
        files = {str(file.relative_to(run / "load")) for file in Path(place).rglob("*") if file.is_file()}

    assert (set() if found is None else {*names, "manifest.json"}) == files
    assert found is None or size == 4


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'"x"',
        b"[" * 200_000,
        b" " * (17 * 2**20),
        b'{"stage": "load"}',
    ],
    ids=["empty", "list", "broken", "bytes", "text", "deep", "long", "partial"],
)
def test_what_is_no_manifest_is_told_in_a_line(tmp_path: Path, text: bytes) -> None:
    store = Store("memory", MemoryStore())
    store.objects.put("keys/load/k.json", text)

    with pytest.raises(StageError, match=r"^keys/load/k.json in memory is no manifest$"):
        store.fetch("keys/load/k.json", tmp_path / RUN / "load", "tiny")


@pytest.mark.parametrize(("stage", "model", "run"), [("wrap", "tiny", RUN), ("load", "other", RUN), ("load", "tiny", "../x")])
def test_a_manifest_of_something_else_is_refused(tmp_path: Path, stage: str, model: str, run: str) -> None:
    store = Store("memory", MemoryStore())
    told = made(tmp_path / RUN / "load").model_dump(mode="json") | {"stage": stage, "model": model, "run": run}
    store.objects.put("keys/load/k.json", json.dumps(told).encode())

    with pytest.raises(StageError, match="is not the manifest of a load of tiny"):
        store.fetch("keys/load/k.json", tmp_path / "b" / "load", "tiny")


class Refusing(BaseHTTPRequestHandler):
    """Answers as S3 does to a wrong signature: with what it was sent."""

    status = 403

    def do_PUT(self) -> None:
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture(params=[403, 401, 500, 400])
def refusing(request: pytest.FixtureRequest) -> Iterator[str]:
    handler = type("Handler", (Refusing,), {"status": request.param})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_store_that_refuses_is_told_with_the_remedy_and_without_credentials(
    refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**SECRETS, "AWS_ENDPOINT_URL": refusing.replace("//", "//user:SecretNeverShown@")}.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(StageError) as error:
        opened("s3://bucket/prefix")

    told = str(error.value)
    assert "SignatureDoesNotMatch" in told
    assert "check AWS_" in told
    assert told.endswith("or write artifacts_url=null")
    assert [] == [secret for secret in SECRETS.values() if secret in told and secret != "eu-west-1"]


def test_a_store_that_nobody_serves_and_a_folder_that_is_not_there_are_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    for name, value in {**SECRETS, "AWS_ENDPOINT_URL": address}.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()

    with pytest.raises(StageError, match=rf"requests to {address} fail; check AWS_ENDPOINT_URL.*artifacts_url=null"):
        opened("s3://bucket/prefix")
    with pytest.raises(StageError, match=r"make or mount the folder, or write artifacts_url=null"):
        opened(f"file://{tmp_path}/none")

    assert time.monotonic() - began < WAIT_S


def test_ctrl_c_does_not_wait_for_a_store_that_says_nothing(tmp_path: Path) -> None:
    code = "from pipelines.store import opened; print('asking', flush=True); opened('s3://bucket/prefix')"
    with create_server(("127.0.0.1", 0)) as silent:
        told = {**os.environ, **SECRETS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, env=told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as asking:
            try:
                silent.settimeout(WAIT_S)
                connection, _ = silent.accept()
                asking.send_signal(signal.SIGINT)
                _, said = asking.communicate(timeout=WAIT_S)
            finally:
                asking.kill()
            connection.close()

    assert said.rstrip().endswith("KeyboardInterrupt")
    assert -signal.SIGINT == asking.returncode


def finished(artifacts: Path, run: str, store: Store) -> Path:
    """A complete run of digits_cnn in `artifacts`, shared."""
    config = read_config(["model=digits_cnn"]).config
    folder = artifacts / "digits_cnn" / run
    for stage in STAGES:
        made(folder / stage, {f"{stage}.html": f"{stage} of {run}"})
        text = (folder / stage / "manifest.json").read_text()
        (folder / stage / "manifest.json").write_text(text.replace('"tiny"', '"digits_cnn"'))
    console = Console("digits_cnn", "report", folder)
    tasks.Run(config, accelerator_of(config, project_root()), folder, console, store=store).share()
    return folder


def test_a_store_that_fails_under_way_costs_no_work_and_is_told_at_the_end(tmp_path: Path, store: Store, shelf: Path) -> None:
    (shelf / "keys").write_text("a file where a folder should be")
    folder = tmp_path / "digits_cnn" / RUN
    config = read_config(["model=digits_cnn"]).config
    run = tasks.Run(config, accelerator_of(config, project_root()), folder, Console("digits_cnn", "wrap", folder), store=store)
    shown = io.StringIO()
    line = Line(Terminal(file=shown, soft_wrap=True), "load")

    for stage in ("load", "wrap"):
        manifest = run._make(stage, "k", partial(made, folder / stage), line)
        run._keep(by_key(stage, "k"), manifest, line, anew=True)

    first, second = shown.getvalue().splitlines()  # once each, though two stages met it
    assert f"{store.url}: " in first
    assert first.endswith("; making it here")
    assert second.endswith("; it stays here until the run is at its end")
    with pytest.raises(StageError, match=rf"Nothing is lost: the run is in {folder}; the same command tries again"):
        run.share()
    (shelf / "keys").unlink()
    run.share()
    assert store.holds(by_key("load", "k"))
    assert store.holds(by_key("wrap", "k"))


@pytest.mark.parametrize(("words", "run", "stages"), [([], LATER, STAGES), ([f"run={RUN}", "stage=report"], RUN, ["report"])])
def test_a_finished_run_or_its_report_is_fetched_from_elsewhere(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str], words: list[str], run: str, stages: list[str]
) -> None:
    for name in (LATER, RUN):
        finished(tmp_path / "a", name, store)
    told = ["model=digits_cnn", f"artifacts_url={store.url}", f"artifacts={tmp_path}/b", *words]

    assert [0, 0] == [fetch.main(told), fetch.main(told)]  # the second time it is there

    folder = tmp_path / "b" / "digits_cnn" / run
    assert {stage: f"{stage} of {run}" for stage in stages} == {
        path.name: (path / f"{path.name}.html").read_text() for path in folder.iterdir()
    }
    assert f"{', '.join(stages)} of digits_cnn, run {run}, in {folder}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=20260103-000000-0000"], f"no finished run 20260103-000000-0000 of digits_cnn .* the newest are {RUN}"),
        (["model=resnet50"], "no finished run of resnet50 .* there is none"),
        (["stage=reports"], "stage=reports is not known; known are load"),
        (["artifacts_url=null"], "artifacts_url is not set.*artifacts_url=s3://"),
    ],
)
def test_what_cannot_be_fetched_is_refused(
    tmp_path: Path, store: Store, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    finished(tmp_path / "a", RUN, store)

    code = fetch.main(["model=digits_cnn", f"artifacts_url={store.url}", f"artifacts={tmp_path}/b", *words])

    assert 2 == code
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "b").exists()


def test_a_key_says_what_files_hold_and_not_where_they_are(tmp_path: Path) -> None:
    for clone in ("alice", "bob"):
        (tmp_path / clone / "code").mkdir(parents=True)
        (tmp_path / clone / "code" / "handler.py").write_text("same")
    places = [[tmp_path / clone / "code", tmp_path / clone / "code" / "handler.py"] for clone in ("alice", "bob")]

    assert tasks._sha256(places[0]) == tasks._sha256(places[1])
    (tmp_path / "bob" / "code" / "handler.py").write_text("other")
    assert tasks._sha256(places[0]) != tasks._sha256(places[1])
