import json
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marline.core import read_manifest

pytestmark = pytest.mark.e2e

WORDS = ["model=digits_cnn", "profile=smoke", "until=load"]


@pytest.fixture(scope="module")
def scheduled(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A schedule of every minute, begun before the other tests here: what it starts takes up to a minute to come."""
    own = type(place)(place.root, tmp_path_factory.mktemp("artifacts"), place.temp)
    process = own.start("pipelines.schedule", *WORDS, "cron=* * * * *")
    with process:
        yield process, own
        process.kill()


def test_a_schedule_says_what_it_will_do(scheduled: tuple[subprocess.Popen[str], Any]) -> None:
    process, _ = scheduled
    assert process.stdout is not None

    said = process.stdout.readline()

    assert said.startswith("schedule: digits_cnn at '* * * * *' with profile=smoke until=load artifacts=")
    assert "fresh=tune; Ctrl-C ends it" in said


@pytest.mark.parametrize("cron", [["cron=every day"], ["cron=61 * * * *"], []])
def test_a_time_that_is_none_is_refused_with_an_example(cron: list[str], place: Any) -> None:
    refused = place.run("pipelines.schedule", *WORDS, *cron)

    assert (2, "") == (refused.code, refused.out)
    assert 'cron="0 3 * * *"' in refused.err
    assert "Traceback" not in refused.err


def test_prefect_s_own_server_answers_and_ends(place: Any, until: Callable[..., float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        place.command("pipelines.server", f"port={port}"),
        cwd=place.root,
        env={**place.environment, "PREFECT_HOME": str(place.temp / "prefect")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def healthy() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5) as answer:
                return json.load(answer) is True
        except OSError:
            return False

    with server:
        try:
            took = until(healthy, 60, "Prefect's server answers")
            print(f"Prefect's server answered after {took:.0f} s")
            server.terminate()
            server.wait(30)
        finally:
            server.kill()
    assert not healthy()


def test_a_run_is_really_started_and_ctrl_c_leaves_no_process(
    scheduled: tuple[subprocess.Popen[str], Any], until: Callable[..., float]
) -> None:
    process, own = scheduled

    def finished() -> list[Path]:
        return list(own.artifacts.glob("digits_cnn/*/load/manifest.json"))

    took = until(finished, 100, "a scheduled run loads the model")
    print(f"the scheduled run was there {took:.0f} s later")
    assert "digits_cnn" == read_manifest(finished()[0].parent).model

    process.send_signal(signal.SIGINT)

    process.wait(30)
    until(lambda: not own.ours(), 10, "no process of the schedule")
