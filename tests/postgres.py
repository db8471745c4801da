"""A PostgreSQL of our own on loopback, with a password, for as long as it is needed; it refuses to run as root."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

READY_S = 60.0
USER = "prefect"


def programs() -> Path | None:
    """The folder of initdb and postgres, which distributions leave out of PATH; None where there is none."""
    on_path = shutil.which("postgres")
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), *([Path(on_path).parent] if on_path else [])]
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


@contextmanager
def postgres() -> Iterator[tuple[str, str]]:
    """The address of its database as SQLAlchemy takes it, and the password in that; the caller has looked for `programs`."""
    found = programs()
    assert found is not None
    home, password = Path(tempfile.mkdtemp(prefix="marline-postgres-", dir="/tmp")), secrets.token_hex(8)
    (home / "password").write_text(password)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    somebody = ["setpriv", "--pdeathsig", "QUIT"]
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for place in (home, home / "password"):
            os.chown(place, nobody.pw_uid, nobody.pw_gid)
        somebody += [f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    made = [str(found / "initdb"), "-D", str(home / "data"), "-U", USER, "-A", "scram-sha-256", "--pwfile"]
    made += [str(home / "password"), "--no-sync", "-E", "UTF8", "--locale=C"]
    kept = [str(found / "postgres"), "-D", str(home / "data"), "-k", str(home), "-p", str(port)]
    kept += ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    try:
        subprocess.run([*somebody, *made], cwd=home, check=True, stdout=subprocess.DEVNULL, timeout=READY_S)
        with (home / "log").open("w") as log, subprocess.Popen([*somebody, *kept], cwd=home, stdout=log, stderr=log) as server:
            try:
                _wait(port, server, home / "log")
                yield f"postgresql+asyncpg://{USER}:{password}@127.0.0.1:{port}/postgres", password
            finally:
                server.terminate()
    finally:
        shutil.rmtree(home)


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while "ready to accept connections" not in log.read_text():
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"PostgreSQL was not ready on port {port} within {READY_S:.0f} s"
        time.sleep(0.1)
