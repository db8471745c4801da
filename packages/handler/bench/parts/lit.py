"""LitServe as a context: in an environment of its own, on loopback, gone at the end."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import torch

from marline.core import StageError
from marline.deploy._guard import end_tree
from marline.loadtest import Target, _child
from packages.handler.bench.parts.archives import SERVED
from packages.handler.bench.parts.environments import environment

LITSERVE = "litserve==0.2.19"
READY_S, POLL_S = 60.0, 0.2


@contextmanager
def lit_serving(model: Path, batch_size: int, delay_ms: int, folder: Path) -> Iterator[Target]:
    """Serve a scripted model until the block ends; StageError where LitServe cannot be had or does not come up."""
    python = environment("litserve", [LITSERVE], ours_too=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = [model, port, batch_size, delay_ms / 1e3, torch.get_num_threads()]
    command = [str(python), str(SERVED / "lit_server.py"), *map(str, told)]
    log = folder / "litserve.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_child.__file__), str(os.getpid()), *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        _wait(process, port, log)
        yield Target(url=f"http://127.0.0.1:{port}/predict", token=None)
    finally:
        end_tree(process.pid)
        process.wait()


def bodies(photos: Sequence[Path], folder: Path) -> list[Path]:
    """The photos as LitServe's users send them: base64 in JSON."""
    made = []
    for photo in photos:
        made.append(folder / f"{photo.stem}.json")
        made[-1].write_text(json.dumps({"image_data": base64.b64encode(photo.read_bytes()).decode()}))
    return made


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/health", timeout=2.0).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        time.sleep(POLL_S)
    raise StageError(f"LitServe did not come up within {READY_S:g} s: {log.read_text(errors='replace')[-600:]}")
