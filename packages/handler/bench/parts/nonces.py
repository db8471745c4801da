"""Requests of mixed kind and size, each with its own nonce, from many clients to two workers: all answers must be their own."""

import http.client
import io
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from marline.core import read_config
from marline.deploy import Server, serving
from marline.tune._batches import read_batches
from packages.handler.bench.parts.exchange import DEADLINE_S
from packages.handler.bench.parts.figure import figure
from packages.handler.bench.parts.small import echo, npy

REQUESTS, CLIENTS, WORKERS = 5000, 32, 2
BATCH, DELAY_MS = 8, 5
BITS = 24  # what a float32 of a JSON list can carry
BLOCK, COLUMNS = 8, 8  # as served/echo/handler.py reads them
LARGEST = 60_000  # bytes of padding


def nonces(requests: int = REQUESTS) -> list[dict[str, Any]]:
    """How many of the answers were not the request's own."""
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as folder:
        config = read_config(["model=digits_cnn"]).config.deploy
        with serving(config, Path(folder, "logs")) as server:
            archive = echo(Path(folder), WORKERS)
            server.load(archive, "echo", batch_size=BATCH, max_batch_delay_ms=DELAY_MS, workers=WORKERS)
            began = time.monotonic()
            seen = _answers(server, requests)
            seconds = time.monotonic() - began
            batches = read_batches(server.batches)
            workers = len(list(server.batches.glob("*.csv")))
    own = sum(number for (_, said), number in seen.items() if said == "own")
    kinds = Counter(kind for kind, _ in seen.elements())
    mixed = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    wrong = [f"{number} {kind}: {said}" for (kind, said), number in seen.most_common() if said != "own"]
    served = f"{workers} workers, mean batch {mean(batch.size for batch in batches):.1f}"
    note = "; ".join([mixed, f"{CLIENTS} clients, {requests / seconds:.0f}/s", served, *wrong[:5]])
    name = f"answers of {requests} mixed requests that are not their own"
    return [figure(name, requests - own, "answers", 0, own == requests, requests, note)]


def _answers(server: Server, requests: int) -> Counter[tuple[str, str]]:
    """(kind, "own" or what was wrong) of each answer."""
    bodies, seen, lock = _bodies(requests), Counter[tuple[str, str]](), threading.Lock()

    def client() -> None:
        address = urlsplit(server.client.inference_url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=DEADLINE_S)
        told = {"Authorization": f"Bearer {server.client.tokens.inference}"}
        while True:
            with lock:
                found = next(bodies, None)
            if found is None:
                break
            nonce, kind, body, content_type = found
            said = _said(connection, body, {**told, "Content-Type": content_type}, nonce)
            with lock:
                seen[kind, said] += 1
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def _said(connection: http.client.HTTPConnection, body: bytes, headers: Mapping[str, str], nonce: int) -> str:
    try:
        connection.request("POST", "/predictions/echo", body, dict(headers))
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return type(error).__name__
    if response.status != 200:
        return f"{response.status} {answer[:60]!r}"
    return "own" if json.loads(answer) == {"output": {"nonce": nonce}} else "another's"


def _bodies(requests: int) -> Iterator[tuple[int, str, bytes, str]]:
    """Nonce, kind, body and content type of each request; every nonce once, kinds in a random order of a seed."""
    draw = random.Random(0)
    every = draw.sample(range(1 << BITS), requests)
    for nonce in every:
        kind = draw.choice(list(KINDS))
        make, content_type = KINDS[kind]
        yield nonce, kind, make(nonce, draw.randrange(LARGEST)), content_type


def _picture(kind: str) -> Callable[[int, int], bytes]:
    def make(nonce: int, size: int) -> bytes:
        """The nonce in blocks, in the corner of a grey picture of some size."""
        bits = np.array([nonce >> place & 1 for place in reversed(range(BITS))], np.uint8).reshape(-1, COLUMNS)
        pixels = np.full((BLOCK * len(bits) + size % 97, BLOCK * COLUMNS + size % 211), 90, np.uint8)
        pixels[: BLOCK * len(bits), : BLOCK * COLUMNS] = np.kron(bits * 255, np.ones((BLOCK, BLOCK), np.uint8))
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, kind)
        return stream.getvalue()

    return make


def _array(nonce: int, size: int) -> bytes:
    return npy(np.concatenate([[nonce], np.zeros(size // 8)]))


def _list(nonce: int, size: int) -> bytes:
    return json.dumps([nonce, *range(size // 64)]).encode()


def _object(nonce: int, size: int) -> bytes:
    return json.dumps({"padding": "x" * size, "nonce": nonce}).encode()


def _text(nonce: int, size: int) -> bytes:
    return f"{nonce} {'word ' * (size // 5)}".encode()


KINDS: dict[str, tuple[Callable[[int, int], bytes], str]] = {
    "JPEG": (_picture("JPEG"), "image/jpeg"),
    "PNG": (_picture("PNG"), "image/png"),
    "npy": (_array, "application/octet-stream"),
    "JSON list": (_list, "application/json"),
    "JSON object": (_object, "application/json"),
    "text": (_text, "text/plain"),
}
