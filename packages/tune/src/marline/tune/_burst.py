"""Many requests at once on connections that are open already: what a service curve is measured with.

A request costs the sender a fraction of a millisecond, so that on a small machine it hardly slows what it measures.
"""

import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from marline.core import StageError
from marline.deploy import Reply, Server, content_type_of

DEADLINE_S = 60.0
OUT_OF_MEMORY = 507  # TorchServe's answer to a MemoryError, to any CUDA error, and to a worker that was killed


class TooLarge(StageError):
    """A batch of this size does not fit into the memory that the worker has."""


class Bursts:
    """Connections to one model, and the payloads that are sent on them in turn."""

    def __init__(self, server: Server, model: str, payloads: Sequence[Path]) -> None:
        self._server, self._model, self._sent = server, model, 0
        self._bodies = [(file.read_bytes(), content_type_of(file.name)) for file in payloads]
        self._connections: list[HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    def send(self, count: int) -> list[float]:
        """Send so many requests at once and await every answer; how long after its sending each was read, in ms.

        TooLarge where one ends the worker's memory, StageError where one is not answered with 200.
        """
        address = urlsplit(self._server.client.inference_url)
        while len(self._connections) < count:
            self._connections.append(HTTPConnection(address.hostname or "", address.port, timeout=DEADLINE_S))
        bodies = [self._bodies[(self._sent + item) % len(self._bodies)] for item in range(count)]
        self._sent += count
        pairs = list(zip(self._connections, bodies, strict=False))
        began_s, took_ms = [], []
        try:
            for connection, told in pairs:
                began_s.append(time.monotonic())
                self._ask(connection, *told)
            for (connection, told), began in zip(pairs, began_s, strict=True):
                self._check(self._answer(connection, *told))
                took_ms.append((time.monotonic() - began) * 1e3)
        except (OSError, HTTPException) as error:
            raise StageError(f"{self._model} gives no answer while its service curve is measured: {error!r}") from error
        return took_ms

    def _ask(self, connection: HTTPConnection, body: bytes, content_type: str) -> None:
        token = self._server.client.tokens.inference
        headers = {"Content-Type": content_type} | ({"Authorization": f"Bearer {token}"} if token else {})
        connection.request("POST", f"/predictions/{self._model}", body, headers)

    def _answer(self, connection: HTTPConnection, body: bytes, content_type: str) -> Reply:
        response = connection.getresponse()
        told = response.read()
        if response.status == 400 and b"InvalidKeyException" in told:  # the token was renewed meanwhile
            return self._server.client.predict(self._model, body, content_type)
        return Reply(response.status, told)

    def _check(self, reply: Reply) -> None:
        if reply.status != 200:
            kind = TooLarge if reply.status == OUT_OF_MEMORY else StageError
            raise kind(f"{self._model} answers {reply.status} while its service curve is measured: {reply.body[:300]!r}")
