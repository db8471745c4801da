"""`python -m pipelines.server [port=4200] [database=ADDRESS]`: Prefect's own server and page.

Its database is a file in artifacts/.prefect, or the PostgreSQL that `database=` or PREFECT_API_DATABASE_CONNECTION_URL names.
"""

import atexit
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from marline.core import MarlineError, RequestError, StageError
from pipelines.environment import prepare

READY_S = 120.0
STOP_S = 20.0
DATABASE = "PREFECT_API_DATABASE_CONNECTION_URL"
NEWER = "PREFECT_SERVER_DATABASE_CONNECTION_URL"  # the same setting: Prefect knows both
EMPTY = Path(sys.prefix) / "prefect.db"  # Prefect's tables with nothing in them, from nox -s env


def start(home: Path) -> Callable[[], None]:
    """Have a server of Prefect's until we end; call what it returns, which waits for its answer, before the first flow.

    It is the one that PREFECT_API_URL names, else a child of ours on a free port; its log is `server.log` in `home`. It
    begins while its caller imports what is heavy. Prefect's own temporary server would not: it is started by a client,
    imports all of Prefect's server into our process, and an interrupt of the terminal ends it before our flow.
    """
    if "PREFECT_API_URL" in os.environ:
        return lambda: None
    make_tables(home)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = home / "server.log"
    with log.open("ab") as said:
        server = subprocess.Popen(_command(port), stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    atexit.register(_stop, server)  # before Prefect is imported: what it sends at our end goes out first
    return partial(_wait, server, port, log)


def make_tables(home: Path) -> None:
    """Begin a database of Prefect's as a copy of an empty one: without it Prefect makes the tables, in some 5 s."""
    database, copied = home / "prefect.db", home / f".prefect.db.{os.getpid()}"
    if not EMPTY.is_file() or database.exists() or {DATABASE, NEWER} & os.environ.keys():
        return
    shutil.copyfile(EMPTY, copied)
    with suppress(OSError):  # another run began at the same moment, or the file system has no links
        os.link(copied, database)
    copied.unlink()


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
        port, database = request(words)
        home = prepare("artifacts")
    except MarlineError as error:
        print(f"prefect: {error}", file=sys.stderr)
        return error.exit_code
    if database is not None:
        os.environ[DATABASE] = database
    make_tables(home)
    os.environ.setdefault("PREFECT_UI_API_URL", f"http://127.0.0.1:{port}/api")  # else the page asks port 4200
    told = os.environ.get(DATABASE) or os.environ.get(NEWER)
    print(f"prefect: http://127.0.0.1:{port}; runs use it with PREFECT_API_URL=http://127.0.0.1:{port}/api", flush=True)
    print(f"prefect: its database is {without_password(told) if told else home / 'prefect.db'}", flush=True)
    _become(port)


def request(words: Sequence[str]) -> tuple[int, str | None]:
    """The port asked for, 4200 by default, and the address of a database; the message of a RequestError shows no password."""
    told = {"port": "4200"}
    for word in words:
        key, _, value = word.partition("=")
        if key not in ("port", "database") or not value:
            raise RequestError(f"{key!r} is not understood; write port=NUMBER or database=ADDRESS, for example port=4200")
        told[key] = value
    if not told["port"].isdecimal() or not 0 < int(told["port"]) < 65536:
        raise RequestError(f"port={told['port']} is no port; write a number from 1 to 65535, for example port=4200")
    database = told.get("database")
    if database is not None and not database.startswith(("postgresql+asyncpg://", "sqlite+aiosqlite:///")):
        kind = database.partition(":")[0][:40]
        raise RequestError(f"database={kind}:… is none that Prefect takes; write database=postgresql+asyncpg://USER@HOST/NAME")
    return int(told["port"]), database


def without_password(address: str) -> str:
    """The address of a database as one may show it: neither password nor options."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
