"""`python -m pipelines.server [port=4200]`: Prefect's own server and page, with its database in artifacts/.prefect."""

import atexit
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from marline.core import MarlineError, RequestError, StageError
from pipelines.environment import prepare

READY_S = 120.0
STOP_S = 20.0


def start(home: Path) -> Callable[[], None]:
    """Have a server of Prefect's until we end; call what it returns, which waits for its answer, before the first flow.

    It is the one that PREFECT_API_URL names, else a child of ours on a free port; its log is `server.log` in `home`. It
    begins while its caller imports what is heavy. Prefect's own temporary server would not: it is started by a client,
    imports all of Prefect's server into our process, and an interrupt of the terminal ends it before our flow.
    """
    if "PREFECT_API_URL" in os.environ:
        return lambda: None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = home / "server.log"
    with log.open("ab") as said:
        server = subprocess.Popen(_command(port), stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    atexit.register(_stop, server)  # before Prefect is imported: what it sends at our end goes out first
    return partial(_wait, server, port, log)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5):
                return
        except OSError:  # not listening yet
            time.sleep(0.2)
    raise StageError(f"Prefect's server did not answer within {READY_S:.0f} s; read {log}")


def _command(port: int) -> list[str]:
    return [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]


def _become(port: int) -> NoReturn:
    os.execv(sys.executable, _command(port))  # noqa: S606 - signals must reach the server itself


def main(words: Sequence[str]) -> int:
    """Becomes Prefect's server; exit code 2 for a wrong request."""
    try:
        port = port_of(words)
        prepare("artifacts")
    except MarlineError as error:
        print(f"prefect: {error}", file=sys.stderr)
        return error.exit_code
    print(f"prefect: http://127.0.0.1:{port}; runs use it with PREFECT_API_URL=http://127.0.0.1:{port}/api", flush=True)
    _become(port)


def port_of(words: Sequence[str]) -> int:
    """The port asked for, 4200 by default."""
    if not words:
        return 4200
    key, _, value = words[0].partition("=")
    if len(words) > 1 or key != "port" or not value.isdecimal() or not 0 < int(value) < 65536:
        raise RequestError(f"{' '.join(words)!r} is not understood; the only setting is port=NUMBER, for example port=4200")
    return int(value)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
