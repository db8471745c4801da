"""Swaps, roll-backs, renewed tokens and crash loops on one real server that is asked all the time."""

import json
import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from marline.core import Manifest, NotReady, ParityError, WorkerError, read_config
from marline.deploy import Client, Release, Server, Tokens, content_type_of, roll_back, serving, swap
from marline.deploy._restarts import Restarts
from marline.handler import Pair, read_golden

pytestmark = pytest.mark.e2e

MODEL, APART = "digits_cnn", 100
OTHER = ('"digit": digit,', f'"digit": digit + {APART},')
RAISES = ("    if not isinstance", '    raise RuntimeError("the weights are of another model")\n    if not isinstance')
HANGS = ("handler = handler_factory(", "import time\n\ntime.sleep(600)\nhandler = handler_factory(")
EVERY_S = 0.04


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One whose tokens live for six seconds."""
    config = read_config([f"model={MODEL}", "deploy.token_min=0.1", "deploy.ready_s=90"]).config.deploy
    with serving(config, tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.fixture(scope="module")
def release(stage: Callable[[str], Manifest], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Release]:
    """The smoke run's archive, or a copy with another handler and the golden pairs that go with it."""
    archived, exported = stage("archive"), stage("export")
    pairs, source = read_golden(exported.path("golden.json")), archived.path(archived.facts["archive"])
    samples = [(file.read_bytes(), content_type_of(file.name)) for file in sorted(stage("load").path("sample").iterdir())]

    def make(change: tuple[str, str] | None = None, *, apart: int = 0) -> Release:
        archive = source if change is None else changed(source, tmp_path_factory.mktemp("archive"), change)
        expected = [replace(pair, answer=_moved(pair, apart)) for pair in pairs]
        told: dict[str, Any] = {"atol": exported.facts["atol"], "rtol": exported.facts["rtol"], "samples": samples}
        return Release(archive=archive, batch_size=2, max_batch_delay_ms=5, workers=1, pairs=expected, **told)

    return make


def _moved(pair: Pair, apart: int) -> Any:
    output = pair.answer["output"]
    return {**pair.answer, "output": {**output, "digit": output["digit"] + apart}}


def changed(source: Path, folder: Path, change: tuple[str, str]) -> Path:
    file = folder / source.name
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.infolist():
            text = old.read(entry)
            changed = text.replace(change[0].encode(), change[1].encode())
            new.writestr(entry, changed if entry.filename == "handler.py" else text)
    return file


@dataclass
class Asked:
    """What came back, in the order it came."""

    versions: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


@contextmanager
def asking(server: Server, pair: Pair) -> Iterator[Asked]:
    """Two senders that ask the live version all the time."""
    asked, done = Asked(), threading.Event()

    def ask() -> None:
        while not done.wait(EVERY_S):
            reply = server.client.predict(MODEL, pair.request, content_type_of(pair.name))
            digit = json.loads(reply.body)["output"]["digit"] if reply.status == 200 else None
            if digit is None or digit % APART != pair.answer["output"]["digit"]:
                asked.wrong.append(f"{reply.status} {reply.body[:200]!r}")
            else:
                asked.versions.append(digit // APART)

    senders = [threading.Thread(target=ask) for _ in range(2)]
    for sender in senders:
        sender.start()
    try:
        yield asked
    finally:
        done.set()
        for sender in senders:
            sender.join()


def test_a_swap_loses_nothing_and_every_answer_is_of_one_version(server: Server, release: Callable[..., Release]) -> None:
    swap(server, MODEL, release())
    other, pair = release(OTHER, apart=APART), release().pairs[0]

    with asking(server, pair) as asked:
        there = swap(server, MODEL, other, canary_s=1)
        time.sleep(0.5)
        back = swap(server, MODEL, release())
        time.sleep(0.5)

    assert [] == asked.wrong
    assert {0, 1} == set(asked.versions)
    assert there.version.startswith("1.0-")  # both archives call themselves 1.0
    assert ("1.0", there.version, (), ()) == (there.before, back.before, there.kept, back.kept)
    assert there.canary is not None
    assert (0, 0) == there.canary.errors
    assert there.canary.differing == there.canary.samples >= 1
    assert ["1.0"] == [one.version for one in server.client.versions(MODEL)]


@pytest.mark.parametrize(
    ("change", "error", "ready_s", "says"),
    [
        (RAISES, WorkerError, 90, "RuntimeError: the weights are of another model"),
        (OTHER, ParityError, 90, "answer.output.digit"),
        (HANGS, NotReady, 6, "had no ready worker after 6 s"),
    ],
    ids=["raises", "answers otherwise", "never ready"],
)
def test_a_bad_version_is_rolled_back_and_nobody_notices(
    server: Server, release: Callable[..., Release], change: tuple[str, str], error: type[Exception], ready_s: float, says: str
) -> None:
    swap(server, MODEL, release())
    bad, pair = release(change), release().pairs[0]

    with asking(server, pair) as asked, pytest.raises(error, match=says) as raised:
        swap(replace(server, ready_s=ready_s), MODEL, bad)

    assert "1.0 was live all the time and still is" in str(raised.value)
    assert [] == asked.wrong
    assert {0} == set(asked.versions)
    assert ["1.0"] == [one.version for one in server.client.versions(MODEL)]
    assert 1 == len([*(server.folder / "store").iterdir()])


def test_a_kept_version_answers_by_its_name_and_is_gone_back_to_at_once(
    server: Server, release: Callable[..., Release]
) -> None:
    swap(server, MODEL, release())
    other, pair = release(OTHER, apart=APART), release().pairs[0]
    kind = content_type_of(pair.name)

    swapped = swap(server, MODEL, other, keep=1)
    digits = [
        json.loads(server.client.predict(MODEL, pair.request, kind, version=version).body)["output"]["digit"]
        for version in (None, "1.0", swapped.version)
    ]
    back = roll_back(server, MODEL, "1.0")

    expected = pair.answer["output"]["digit"]
    assert [expected + APART, expected, expected + APART] == digits
    assert ("1.0", (swapped.version,)) == (back.version, back.kept)
    assert expected == json.loads(server.client.predict(MODEL, pair.request, kind).body)["output"]["digit"]
    swap(server, MODEL, release())  # nobody is kept
    assert 404 == server.client.predict(MODEL, pair.request, kind, version=swapped.version).status


def test_tokens_have_been_renewed_all_the_while_and_the_old_ones_are_refused(
    server: Server, release: Callable[..., Release], until: Callable[..., float]
) -> None:
    swap(server, MODEL, release())
    pair, old, renewals = release().pairs[0], server.client.tokens.inference, server.client.tokens.renewals
    client = server.client
    late = Client(client.management_url, client.inference_url, Tokens("", old))

    until(lambda: late.predict(MODEL, pair.request, content_type_of(pair.name)).status == 400, 15, "the old one has expired")

    assert 200 == client.predict(MODEL, pair.request, content_type_of(pair.name)).status
    assert renewals < client.tokens.renewals
    with client.tokens.lock:  # no renewal in between
        assert {"token": client.tokens.inference} == json.loads(server.token_file.read_text())
    for file in (server.token_file, server.folder / "key_file.json"):
        assert 0o600 == file.stat().st_mode & 0o777
    logs = "".join(file.read_text() for file in server.logs.iterdir())
    assert not any(token in logs for token in (old, client.tokens.inference, client.tokens.api))


def test_a_worker_that_dies_again_and_again_is_called_down_though_ping_says_healthy(
    server: Server, release: Callable[..., Release], until: Callable[..., float]
) -> None:
    swap(server, MODEL, release())
    restarts = Restarts()
    found: list[str] = []
    killed: set[int] = set()

    def looping() -> bool:
        versions = server.client.versions(MODEL)
        found[:] = restarts.looping(MODEL, versions, time.monotonic())
        for pid, state in versions[0].workers:
            if state == "READY" and pid not in killed and len(killed) < 3:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
        return bool(found)

    until(looping, 60, "three restarts were seen")
    with httpx2.Client(timeout=30, verify=False) as http:
        headers = {"Authorization": f"Bearer {server.client.tokens.inference}"}
        ping = http.get(f"{server.client.inference_url}/ping", headers=headers)

    assert ["1.0"] == found
    assert "Healthy" in ping.text
    until(lambda: server.client.versions(MODEL)[0].ready == 1, 60, "the worker is back")


def test_a_java_that_is_killed_is_noticed_and_tidied_up_after(server: Server, until: Callable[..., float]) -> None:
    """The last: nothing serves after it."""
    java = int((server.folder / "java.pid").read_text())
    below = psutil.Process(java).children(recursive=True)

    os.kill(java, signal.SIGKILL)

    until(lambda: not server.alive, 3, "the server is known to be dead")
    until(lambda: not any(one.is_running() for one in below) and not server.folder.exists(), 10, "workers and files are gone")
