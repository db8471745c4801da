import json
import re
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

WORDS = ["model=digits_cnn", "profile=smoke", "until=load"]


def test_a_schedule_says_what_it_will_do(scheduled: tuple[subprocess.Popen[str], Any]) -> None:
    process, _ = scheduled
    assert process.stdout is not None

    said = process.stdout.readline()

    assert re.match(r"schedule: digits_cnn at '\d+ \d+ \* \* \*' with profile=smoke until=load artifacts=", said)
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
