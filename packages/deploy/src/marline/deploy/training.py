"""`python -m marline.deploy.training`: one start of TorchServe, from which Java learns what all others load.

Java 25 keeps the classes of a start, read and linked, in an ahead-of-time cache (JEP 483, 514). With it a start of TorchServe
took 1.1 s of processor time in Java where it took 1.9, and answered after 0.55 s where it took 1.0 (medians of 3, 2 cores).
A cache that is not for the Java and the files in use is passed over by Java.
"""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from marline.core import MarlineError, NotReady, read_config
from marline.deploy._folders import new_folder, own
from marline.deploy._settings import AOT_CACHE, command, default_java_home, environment, free_ports, write_settings

READY_S, WRITTEN_S = 60.0, 120.0


def main() -> int:
    """Write the cache anew; a server starts without one, too, so that a failure is told and is none of the caller's."""
    AOT_CACHE.unlink(missing_ok=True)
    try:
        train()
    except MarlineError as error:
        print(f"training: {error}; TorchServe will start, half a second later each time", file=sys.stderr)
    return 0


def train() -> None:
    """Start TorchServe without models, end it in order, and keep what Java has learned; NotReady where that takes too long."""
    config, folder = read_config(["model=digits_cnn"]).config.deploy, new_folder()
    own(folder, os.getpid())
    ports, written = free_ports(config.ports), AOT_CACHE.with_suffix(f".{os.getpid()}")
    write_settings(folder, ports, config, folder)
    java, *words = command(folder, default_java_home(), sys.executable)
    told = environment(folder, folder, default_java_home(), {})
    try:
        with (
            (folder / "console.log").open("wb") as said,
            subprocess.Popen(
                [java, f"-XX:AOTCacheOutput={written}", *words],
                cwd=folder,
                env=told,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            ) as server,
        ):
            try:
                if not _answers(server, ports.inference):
                    raise NotReady(f"TorchServe did not answer within {READY_S:.0f} s, or ended: {_tail(folder)}")
                server.terminate()
                server.wait(WRITTEN_S)
            except subprocess.TimeoutExpired:
                raise NotReady(f"Java did not write what it learned within {WRITTEN_S:.0f} s") from None
            finally:
                server.kill()
        if not written.is_file():
            raise NotReady(f"Java wrote nothing: {_tail(folder)}")
        written.rename(AOT_CACHE)
    finally:
        written.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(server: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as asker:
            if asker.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.1)
    return False


def _tail(folder: Path) -> str:
    return (folder / "console.log").read_text(errors="replace")[-500:].strip()


if __name__ == "__main__":
    raise SystemExit(main())
