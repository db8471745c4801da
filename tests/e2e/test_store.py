"""Runs that share a store, an S3 server of moto's: what one machine made, a second with an empty folder takes."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
from obstore.store import S3Store

from marline.core import STAGES, read_manifest, verify

pytestmark = pytest.mark.e2e

SECRET = "NeverInAnyFile41"
URL = "s3://team/marline"
LAYOUT = r"marline\.json|sha256/[0-9a-f]{2}/[0-9a-f]{62}|keys/\w+/[0-9a-f]{64}\.json|runs/digits_cnn/[0-9a-f-]+/\w+\.json"


@pytest.fixture(scope="module")
def objects(until: Callable[..., float], tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    """An empty bucket on a real server on loopback, and the variables by which every S3 client finds it."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "server.log").open("w")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        asker = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            asker.request("PUT", "/team")  # makes the bucket
            return asker.getresponse().status == 200
        except OSError:
            return False
        finally:
            asker.close()

    with (
        log,
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log) as server,
        pytest.MonkeyPatch.context() as set_to,
    ):
        try:
            until(answers, 60, "moto's server answers")
            told = {"ENDPOINT_URL": address, "ACCESS_KEY_ID": "AKIDTEST", "SECRET_ACCESS_KEY": SECRET, "REGION": "us-east-1"}
            for name, value in told.items():
                set_to.setenv(f"AWS_{name}", value)
            yield S3Store.from_url(URL, client_options={"allow_http": True})
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def kept(objects: S3Store, smoke: Any, sharing: Any, quick: tuple[str, ...]) -> Any:
    """The smoke run again, cached here: all it took goes to the store."""
    assert 0 == smoke.code, smoke.err
    ran = sharing.run("pipelines", "model=digits_cnn", *quick, f"artifacts_url={URL}")
    assert (0, "", list(STAGES)) == (ran.code, ran.err, ran.cached)
    return ran


def machine(sharing: Any, folder: Path) -> Any:
    """The same machine with an empty folder for its artifacts."""
    return replace(sharing, artifacts=folder)


def paths(objects: S3Store) -> list[str]:
    return [one["path"] for part in objects.list() for one in part]


def from_store(ran: Any) -> list[str]:
    return re.findall(r"^  (\w+) +cached  from [0-9a-f-]+ \(store\)", ran.out, re.MULTILINE)


def test_a_second_empty_machine_takes_every_stage_from_the_store(
    objects: S3Store, kept: Any, sharing: Any, quick: tuple[str, ...], tmp_path: Path
) -> None:
    second = machine(sharing, tmp_path / "second").run("pipelines", "model=digits_cnn", *quick, f"artifacts_url={URL}")
    print(f"cached here {kept.seconds:.1f} s, all from the store {second.seconds:.1f} s, {len(paths(objects))} objects")

    assert (0, "", list(STAGES)) == (second.code, second.err, from_store(second))
    for stage in STAGES:
        verify(read_manifest(second.run / stage))
    first, told = (json.loads((ran.run / "report" / "report.json").read_text()) for ran in (kept, second))
    for key in ("chosen", "default", "gain", "slo", "trials", "weights"):
        assert first[key] == told[key]


def test_a_damaged_object_is_noticed_and_the_stage_made_again(
    objects: S3Store, kept: Any, sharing: Any, quick: tuple[str, ...], tmp_path: Path
) -> None:
    weights = read_manifest(kept.run / "load").outputs["checkpoint/model.safetensors"].sha256
    place = f"sha256/{weights[:2]}/{weights[2:]}"
    whole = bytes(objects.get(place).bytes())
    objects.put(place, whole[:-1] + bytes([whole[-1] ^ 1]))

    ran = machine(sharing, tmp_path / "third").run(
        "pipelines", "model=digits_cnn", *quick, "until=archive", f"artifacts_url={URL}"
    )

    assert (0, "", ["wrap", "export", "archive"]) == (ran.code, ran.err, from_store(ran))
    assert f"{place} in {URL} is damaged: its sha256 or size differs; making it here" in " ".join(ran.out.split())
    assert whole == bytes(objects.get(place).bytes()) == (ran.run / "load" / "checkpoint" / "model.safetensors").read_bytes()


def test_a_colleague_fetches_the_report(kept: Any, sharing: Any, tmp_path: Path) -> None:
    words = ["model=digits_cnn", f"artifacts_url={URL}", f"run={kept.run.name}", "stage=report"]
    ran = machine(sharing, tmp_path / "fourth").run("pipelines.fetch", *words)

    report = Path("digits_cnn", kept.run.name, "report", "report.html")
    assert (0, "") == (ran.code, ran.err)
    assert (kept.run / "report" / "report.html").read_bytes() == (tmp_path / "fourth" / report).read_bytes()


def test_the_store_holds_what_stages_made_and_no_file_holds_a_credential(objects: S3Store, kept: Any) -> None:
    files = [file for file in kept.run.parents[1].rglob("*") if file.is_file()]

    assert [] == [path for path in paths(objects) if not re.fullmatch(LAYOUT, path)]
    made = {output.sha256 for stage in STAGES for output in read_manifest(kept.run / stage).outputs.values()}
    assert made <= {path.removeprefix("sha256/").replace("/", "") for path in paths(objects)}
    assert files
    assert [] == [str(file) for file in files if SECRET.encode() in file.read_bytes()]


def test_a_store_out_of_reach_ends_the_run_before_it_begins(
    sharing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)

    ran = machine(sharing, tmp_path / "fifth").run("pipelines", "model=digits_cnn", "until=load", f"artifacts_url={URL}")

    assert 1 == ran.code
    assert f"pipeline: {URL}: requests to http://127.0.0.1:9 fail; check AWS_ENDPOINT_URL" in ran.err
    assert SECRET not in ran.err + ran.out
    assert not (tmp_path / "fifth" / "digits_cnn").exists()
