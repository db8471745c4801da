"""One request over a connection that is opened ahead, exactly as it is given: nothing in path or headers is put right."""

import http.client
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

DEADLINE_S = 30.0
APART_S = 0.004  # between the requests of a batch, so that they queue in their order


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and when on the monotonic clock; status 0 where nothing did."""

    status: int
    body: bytes
    sent_s: float
    finished_s: float


def ask(url: str, request: Request) -> Answer:
    """One request alone."""
    return ask_together(url, [request])[0]


def ask_together(url: str, requests: Sequence[Request]) -> list[Answer]:
    """Requests at the same time, each on its own connection, in this order."""
    address = urlsplit(url)
    connections = [http.client.HTTPConnection(str(address.hostname), address.port, timeout=DEADLINE_S) for _ in requests]
    for connection in connections:
        connection.connect()
    answers: list[Answer | None] = [None] * len(requests)
    begin_s = time.monotonic() + 0.02

    def send(index: int) -> None:
        time.sleep(max(0.0, begin_s + index * APART_S - time.monotonic()))
        answers[index] = _exchange(connections[index], requests[index])

    threads = [threading.Thread(target=send, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answer for answer in answers if answer is not None]


def _exchange(connection: http.client.HTTPConnection, request: Request) -> Answer:
    sent_s = time.monotonic()
    status, body = 0, b""
    with suppress(OSError, http.client.HTTPException):
        connection.putrequest("POST", request.path, skip_accept_encoding=True)
        for name, value in {"Content-Length": str(len(request.body)), **request.headers}.items():
            connection.putheader(name, value)
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before it was read to its end
            connection.endheaders(request.body)
        response = connection.getresponse()
        status, body = response.status, response.read()
    connection.close()
    return Answer(status, body, sent_s, time.monotonic())
