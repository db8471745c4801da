import json
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from marline.archive import with_version
from marline.core import TuneConfig, file_sha256, read_manifest, seal

pytestmark = pytest.mark.e2e

START_S = 60.0


@dataclass(frozen=True)
class Served:
    """A server in the foreground, and what it has said so far."""

    process: subprocess.Popen[str]
    said: list[str]
    state: Path


@pytest.fixture(scope="module")
def served(place: Any, smoke: Any) -> Iterator[Served]:
    """The smoke run, served by name."""
    assert 0 == smoke.code, smoke.err
    process = place.start("marline.deploy.serve", "model=digits_cnn", f"run={smoke.run.name}")
    with process:
        said = [process.stdout.readline()]
        said.append(process.stdout.readline() if said[0] else process.stderr.read())
        state = next(iter((place.temp / "state").rglob("digits_cnn.json")), Path("none"))
        yield Served(process, said, state)
        process.kill()


def test_a_smoke_run_is_not_served_unless_it_is_named(place: Any, smoke: Any) -> None:
    refused = place.run("marline.deploy.serve", "model=digits_cnn")

    assert (2, "") == (refused.code, refused.out)
    assert "name a run: run=RUN" in refused.err


def test_it_says_what_is_served_and_how_to_ask(served: Served, smoke: Any) -> None:
    assert served.said[0].startswith(f"serving digits_cnn of run {smoke.run.name}, batch_size ")
    assert "Ctrl-C stops it" in served.said[0]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_the_curl_line_works_as_it_is_pasted(served: Served) -> None:
    done = subprocess.run(shlex.split(served.said[1]), capture_output=True, text=True, check=True, timeout=30)

    assert {"digit", "probability"} == json.loads(done.stdout)["output"].keys()


def test_the_token_is_in_files_of_the_owner_only(served: Served) -> None:
    token = json.loads(served.state.read_text())["token"]

    assert token
    assert token not in "".join(served.said)
    for file in (served.state, served.state.with_suffix(".curl")):
        assert 0o600 == stat.S_IMODE(file.stat().st_mode)


def test_a_load_test_finds_it(served: Served, place: Any) -> None:
    words = ["model=digits_cnn", "loadtest.rps=20", "loadtest.seconds=2", "loadtest.warmup_s=0.5"]

    shown = place.run("marline.loadtest", *words)

    assert "latency from due" in shown.out, shown.err
    assert "100.0%" in next(line for line in shown.out.splitlines() if "answered 200" in line)
    assert (shown.code == 0) == ("valid              yes" in shown.out)


def test_a_newer_run_is_taken_without_loss_and_a_bad_one_is_not(served: Served, smoke: Any, place: Any, tmp_path: Path) -> None:
    own = type(place)(place.root, tmp_path / "artifacts", place.temp)
    before = json.loads(served.state.read_text())
    newer = another(smoke.run, own.artifacts / "digits_cnn" / "20990101-000000-0001")
    bad = another(smoke.run, own.artifacts / "digits_cnn" / "20990101-000000-0002", version="1.2")
    golden = json.loads((bad / "export" / "golden.json").read_text())
    golden["pairs"][0]["answer"]["output"]["digit"] += 1
    (bad / "export" / "golden.json").write_text(json.dumps(golden))

    swapped = own.run("marline.deploy._swap_command", "model=digits_cnn", f"run={newer.name}")
    state = json.loads(served.state.read_text())
    refused = own.run("marline.deploy._swap_command", "model=digits_cnn", f"run={bad.name}")

    assert 0 == swapped.code, swapped.err
    assert f"digits_cnn 1.1 of run {newer.name} is live after" in swapped.out
    assert ("1.0", "1.1", "UP") == (before["version"], state["version"], state["health"])
    assert 1 == refused.code
    assert "answer.output.digit" in refused.err
    assert "1.1 was live all the time and still is" in refused.err
    assert "1.1" == json.loads(served.state.read_text())["version"]
    assert 0o600 == stat.S_IMODE(served.state.stat().st_mode)


def another(run: Path, copy: Path, version: str = "1.1") -> Path:
    """A copy of a run whose tuned archive calls itself another version."""
    shutil.copytree(run, copy)
    tuned = read_manifest(copy / "tune")
    archive = tuned.path(tuned.facts["tuned"]["archive"])
    with_version(archive, version, copy / "new.mar")
    (copy / "new.mar").replace(archive)
    facts = {**tuned.facts, "tuned": {**tuned.facts["tuned"], "sha256": file_sha256(archive)}}
    told = TuneConfig.model_validate(tuned.config)
    seal(copy / "tune", model="digits_cnn", config=told, inputs=[], facts=facts, started=time.monotonic())
    return copy


@pytest.fixture
def elsewhere(place: Any) -> Iterator[Any]:
    """Another user, who knows of none of the servers: one model is served once."""
    with tempfile.TemporaryDirectory(prefix="marline-") as folder:  # short: workers' sockets are in it
        yield type(place)(place.root, Path(folder, "artifacts"), Path(folder))


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_without_the_run_s_samples_the_example_inside_the_archive_is_sent(smoke: Any, elsewhere: Any) -> None:
    run = elsewhere.artifacts / "digits_cnn" / smoke.run.name
    shutil.copytree(smoke.run, run, ignore=lambda *_: {"load"})
    with elsewhere.start("marline.deploy.serve", "model=digits_cnn", f"run={run.name}") as process:
        try:
            greeting = process.stdout.readline()
            curl = process.stdout.readline()
            assert greeting, process.stderr.read()
            done = subprocess.run(shlex.split(curl), capture_output=True, text=True, check=True, timeout=30)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)

    assert {"digit", "probability"} == json.loads(done.stdout)["output"].keys()


def test_ctrl_c_ends_it_without_a_trace_and_a_load_test_then_names_the_command(served: Served, place: Any) -> None:
    began = time.monotonic()
    served.process.send_signal(signal.SIGINT)

    assert 0 == served.process.wait(30)
    print(f"stopped after {time.monotonic() - began:.1f} s")
    assert not served.state.exists()
    assert not served.state.with_suffix(".curl").exists()
    assert [] == place.servers
    refused = place.run("marline.loadtest", "model=digits_cnn")
    assert 2 == refused.code
    assert "nox -s serve -- model=digits_cnn" in refused.err
