import json
import re
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
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


def test_prefect_s_own_server_answers_and_ends(place: Any, until: Callable[..., float], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path / "server.log"
    with log.open("w") as said:
        server = subprocess.Popen(
            place.command("pipelines.server", f"port={port}"),
            cwd=place.root,
            env={**place.environment, "PREFECT_HOME": str(tmp_path / "made" / "by the server")},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )

    def healthy() -> bool:
        assert server.poll() is None, log.read_text()
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
    assert f"its database is {tmp_path / 'made' / 'by the server' / 'prefect.db'}" in log.read_text()
    with socket.socket() as asker:
        assert asker.connect_ex(("127.0.0.1", port)) != 0
