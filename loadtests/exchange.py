"""Send one request over a connection that is kept, and say what came back. Knows HTTP/1.1, and TorchServe's errors."""

import errno
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent import socket
from geventhttpclient.response import HTTPSocketResponse

MEANINGS = {  # TorchServe's answers that say more of the load than of the model, by their status and a word of theirs
    (503, "has no worker to serve"): "overload",  # the queue is full
    (507, "Out of resources"): "oom",  # memory ended, the machine's or the GPU's: smaller batches may be served
}
RENEWAL_S, POLL_S = 2.0, 0.05  # in which there must be the token that made ours a wrong one


@dataclass(slots=True)
class Requests:
    """What is sent for each payload (its type and its body), with the token as it is now."""

    texts: list[tuple[bytes, bytes]]  # what comes before and after the line with the token
    token: str | None
    token_file: str | None

    def text(self, payload: int) -> bytes:
        """One request."""
        before, after = self.texts[payload]
        return before + (f"Authorization: Bearer {self.token}\r\n".encode() if self.token else b"") + after

    def renewed(self, refused: str | None) -> bool:
        """Whether there comes to be another token than the refused one in time: from the file, or told by the master."""
        for _ in range(round(RENEWAL_S / POLL_S)):
            if self.token != refused:  # another request has seen to it, or the master
                return True
            if self.token_file:
                self.token = json.loads(Path(self.token_file).read_text())["token"]
            if self.token == refused:
                gevent.sleep(POLL_S)
        return self.token != refused


@dataclass(frozen=True, slots=True)
class Connections:
    """Kept-alive connections to one address, the most recently used first."""

    address: tuple[str, int]
    idle: list[Any]

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send one request and read its whole answer; the connection is kept where the server keeps it."""
        connection = self.idle.pop() if self.idle else self.connect()
        try:
            connection.sendall(request)
            response = HTTPSocketResponse(connection, block_size=65536, method="POST")
            body = response.read()
        except BaseException:  # a timeout too: an answer that comes late must not be read as the next one's
            connection.close()
            raise
        if not response.should_close():
            self.idle.append(connection)
        return response.status_code, body

    def connect(self) -> Any:
        """A new connection that sends small requests at once."""
        connection = socket.create_connection(self.address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


def texts(url: str, payloads: Sequence[tuple[str, bytes]]) -> list[tuple[bytes, bytes]]:
    """What is sent for each payload, around the line with the token."""
    at = urlsplit(url)
    made = []
    for kind, body in payloads:
        before = [f"POST {at.path} HTTP/1.1", f"Host: {at.netloc}", f"Content-Type: {kind}"]
        after = [f"Content-Length: {len(body)}", "", ""]
        made.append(("".join(f"{line}\r\n" for line in before).encode("latin-1"), "\r\n".join(after).encode("latin-1") + body))
    return made


def connected(url: str, count: int, timeout_s: float) -> Connections:
    """Open connections ahead, so that the first requests pay for none; where that fails, the requests will tell."""
    at = urlsplit(url)
    family = socket.getaddrinfo(at.hostname, at.port or 80, type=socket.SOCK_STREAM)
    connections = Connections(family[0][4][:2], [])
    opening = [gevent.spawn(connections.connect) for _ in range(count)]
    gevent.joinall(opening, timeout=timeout_s)
    connections.idle.extend(one.value for one in opening if one.ready() and one.successful())
    gevent.killall(opening)
    return connections


def answer_class(status: int, body: bytes) -> str:
    """`HTTP 503 overload`: the status, and what TorchServe's body means by it or else the type it names; "" for a 200."""
    if status == 200:
        return ""
    try:
        told = json.loads(body)
        message, named = told.get("message", ""), told["type"]
        means = [means for (number, words), means in MEANINGS.items() if number == status and words in message]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"HTTP {status}"
    return f"HTTP {status} {means[0] if means else named}"


def failure_class(problem: BaseException) -> str:
    """`ConnectionResetError`, `Timeout`, or `OSError EMFILE`: Python's class, and the system's name where that is for many."""
    number = getattr(problem, "errno", None)
    return f"OSError {errno.errorcode.get(number, number)}" if type(problem) is OSError and number else type(problem).__name__
