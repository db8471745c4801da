"""What the probe makes of each answer a server gives; the real server is asked in tests/e2e/test_targets.py."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from marline.deploy.probe import RESTARTS, WINDOW_S, main, state

Says = Callable[..., str]


@pytest.fixture
def says(tmp_path: Path) -> Iterator[Says]:
    """The state the probe finds where a server answers so."""
    answers: dict[str, tuple[int, Any]] = {}

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = {"/ping": "Bearer i", "/models/digits": "Bearer m"}
            code, body = answers[self.path] if self.headers["Authorization"] == known.get(self.path) else (400, {})
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"127.0.0.1:{server.server_port}"
    told = {"model": "digits", "workers": 2, "management": address, "inference": address, "run": str(tmp_path)}
    (tmp_path / "key_file.json").write_text(json.dumps({"management": {"key": "m"}, "inference": {"key": "i"}}))

    def ask(*workers: tuple[int, str], code: int = 200, ping: int = 200) -> str:
        listed = [{"id": str(index), "pid": pid, "status": status} for index, (pid, status) in enumerate(workers)]
        answers.update({"/models/digits": (code, [{"workers": listed}]), "/ping": (ping, {})})
        return state(told)

    yield ask
    server.shutdown()
    thread.join()
    server.server_close()


def test_all_workers_must_be_ready(says: Says) -> None:
    assert "ready" == says((5, "READY"), (6, "READY"))
    assert "loading" == says((5, "READY"), (6, "UNLOADING"))
    assert "loading" == says((5, "READY"))
    assert "loading" == says()


def test_a_model_that_is_not_there_yet_is_loading(says: Says) -> None:
    assert "loading" == says(code=404)


def test_a_server_that_has_given_up_or_refuses_is_dead(says: Says) -> None:
    assert "dead" == says((-1, "UNLOADING"), ping=500)
    assert "dead" == says(code=400)
    assert "dead" == says(code=500)


def test_no_server_and_no_keys_are_dead(says: Says, tmp_path: Path) -> None:
    assert "ready" == says((5, "READY"), (6, "READY"))
    (tmp_path / "key_file.json").unlink()

    assert "dead" == says((5, "READY"), (6, "READY"))


def test_a_worker_that_is_replaced_again_and_again_is_called_so_though_it_says_ready(says: Says) -> None:
    found = [says((5, "READY"), (pid, "READY")) for pid in range(10, 11 + RESTARTS)]

    assert ["ready"] * RESTARTS + ["crash-looping"] == found


def test_one_restart_of_each_worker_is_no_loop(says: Says) -> None:
    found = [says((first, "READY"), (second, "READY")) for first, second in ((1, 2), (3, 2), (3, 4), (3, 4))]

    assert ["ready"] * 4 == found


def test_the_moment_without_a_process_is_no_restart_of_its_own(says: Says) -> None:
    for pid in (5, -1, 6, -1, 7):
        assert says((pid, "UNLOADING")) == "loading"

    assert "crash-looping" == says((8, "UNLOADING"))


def test_restarts_are_forgotten_after_their_window(says: Says, tmp_path: Path) -> None:
    for pid in range(4):
        says((pid + 1, "READY"), (9, "READY"))
    file = tmp_path / "probe-digits.json"
    noted = json.loads(file.read_text())
    noted["0"]["changes"] = [when - WINDOW_S for when in noted["0"]["changes"]]
    file.write_text(json.dumps(noted))

    assert "ready" == says((4, "READY"), (9, "READY"))


@pytest.mark.parametrize("noted", ["", "{"])
def test_notes_that_were_cut_are_begun_anew(says: Says, tmp_path: Path, noted: str) -> None:
    (tmp_path / "probe-digits.json").write_text(noted)

    assert "ready" == says((5, "READY"), (6, "READY"))


def test_a_server_that_does_not_answer_is_dead_soon(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        told = {"model": "digits", "workers": 1, "management": address, "inference": address, "run": str(tmp_path)}
        (tmp_path / "key_file.json").write_text(json.dumps({"management": {"key": "m"}, "inference": {"key": "i"}}))
        began = time.monotonic()

        assert "dead" == state(told)
    assert time.monotonic() - began < 8


def test_a_role_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert 64 == main(["health"])
    assert "none of liveness, readiness, startup" in capsys.readouterr().err
