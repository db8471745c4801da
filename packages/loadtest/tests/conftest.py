"""A server to load, and the folder of the project, which measure looks for load tests in."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from marline.loadtest import Target

Serve = Callable[..., Target]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start the test server; it is ended with the test."""
    with ExitStack() as stack:

        def start(
            *,
            delay_s: float = 0.0,
            status: int = 200,
            pause_at: int = -1,
            pause_s: float = 0.0,
            message: str = "",
            token_file: Path | None = None,
        ) -> Target:
            words = [str(word) for word in (delay_s, status, pause_at, pause_s, message, token_file or "")]
            command = [sys.executable, str(Path(__file__).with_name("server.py")), *words]
            server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(server.kill)
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/predictions/test"
            return Target(url=url, token="a-token", token_file=token_file)

        yield start


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """Something to send."""
    file = tmp_path / "sample.jpg"
    file.write_bytes(b"\xff" * 20_000)
    return file
