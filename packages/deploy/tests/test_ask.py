import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from marline.core import ServerError
from marline.deploy import Client, Kind, Reply, Status, Tokens, ask

FULL = Reply(503, json.dumps({"type": "ServiceUnavailableException", "message": "m has no worker to serve inference"}).encode())
DIED = Reply(500, json.dumps({"type": "InternalServerException", "message": "Worker died."}).encode())
REFUSED = Reply(400, json.dumps({"type": "BadRequest", "message": "no image"}).encode())
GOOD = Reply(200, b"{}")
TWO = Status(1, 100, ((11, "READY"), (12, "READY")), pending=3)


@dataclass
class Says:
    """A client that gives these answers one after the other, the last one for ever."""

    replies: list[Reply]
    status: Status | None = TWO
    asked: list[tuple[str, bytes, str, str | None, float]] = field(default_factory=list)

    def predict(
        self, model: str, body: bytes, content_type: str, deadline_s: float = 30, *, version: str | None = None
    ) -> Reply:
        self.asked.append((model, body, content_type, version, deadline_s))
        return self.replies[min(len(self.asked), len(self.replies)) - 1]

    def describe(self, model: str, version: str | None = None) -> Status | None:
        if self.status is None:
            raise ServerError(f"no token to describe {model} {version}")
        return self.status


def test_what_never_reached_a_worker_is_sent_again() -> None:
    client = Says([FULL, FULL, GOOD])

    answer = ask(client, "m", b"six", "image/png", version="2.0")

    assert (Kind.OK, 3) == (answer.kind, answer.tries)
    assert [("m", b"six", "image/png", "2.0")] * 3 == [asked[:4] for asked in client.asked]


@pytest.mark.parametrize(("idempotent", "kind", "tries"), [(False, Kind.WORKER_DIED, 1), (True, Kind.OK, 2)])
def test_what_may_have_been_answered_is_sent_again_where_that_does_no_harm(idempotent: bool, kind: Kind, tries: int) -> None:
    answer = ask(Says([DIED, GOOD]), "m", b"", "image/png", idempotent=idempotent)

    assert (kind, tries) == (answer.kind, answer.tries)


def test_a_refusal_is_final() -> None:
    client = Says([REFUSED, GOOD])

    answer = ask(client, "m", b"", "image/png", idempotent=True)

    assert (Kind.BAD_REQUEST, "no image", 1) == (answer.kind, answer.said, len(client.asked))


def test_tries_are_counted_and_end_at_the_deadline() -> None:
    client = Says([FULL])

    assert (Kind.QUEUE_FULL, 4) == ((answer := ask(client, "m", b"", "image/png")).kind, answer.tries)
    began = time.monotonic()
    ask(client, "m", b"", "image/png", deadline_s=1, tries=50)
    assert time.monotonic() - began < 2
    assert client.asked[-1][-1] < 1


def test_whoever_may_not_look_at_the_workers_is_told_that_it_is_one_of_two() -> None:
    assert Kind.NO_CAPACITY is ask(Says([FULL], status=None), "m", b"", "image/png", tries=1).kind


Behave = Callable[[socket.socket], None]


@pytest.fixture
def server() -> Iterator[Callable[[Behave], str]]:
    """A listening socket that does this to each connection; returns its address."""
    over = threading.Event()
    listening: list[socket.socket] = []

    def start(behave: Behave) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(0.1)
        listening.append(listener)

        def run() -> None:
            while not over.is_set():
                with suppress(TimeoutError, OSError):
                    connection, _ = listener.accept()
                    with connection:
                        behave(connection)

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    over.set()
    for listener in listening:
        listener.close()


def trickle(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    for _ in range(30):
        connection.sendall(b".")
        time.sleep(0.1)


def silent(connection: socket.socket) -> None:
    time.sleep(3)


@pytest.mark.parametrize("behave", [trickle, silent])
def test_the_deadline_is_over_the_whole_answer(server: Callable[[Behave], str], behave: Behave) -> None:
    address = server(behave)
    client = Client(address, address, Tokens("m", "i"))
    began = time.monotonic()

    answer = ask(client, "m", b"", "image/png", deadline_s=0.5)

    assert time.monotonic() - began < 1.5
    assert (Kind.SILENCE, 0, 1) == (answer.kind, answer.status, answer.tries)
    assert "/predictions/m gave no answer within" in answer.words


def test_where_nobody_listens_it_is_tried_again_and_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"

    answer = ask(Client(address, address, Tokens("m", "i")), "m", b"", "image/png", deadline_s=5, tries=3)

    assert (Kind.UNREACHABLE, 3) == (answer.kind, answer.tries)


def test_management_is_asked_again_but_a_registration_is_not(server: Callable[[Behave], str]) -> None:
    seen: list[str] = []

    def hang_up(connection: socket.socket) -> None:
        seen.append(connection.recv(65536).split()[0].decode())

    address = server(hang_up)
    client = Client(address, address, Tokens("m", "i"))

    with pytest.raises(ServerError, match="no answer to GET /models/m within"):
        client.describe("m")
    with pytest.raises(ServerError, match="no answer to DELETE /models/m within"):
        client.unregister("m")
    with pytest.raises(ServerError, match="no answer to POST /models within"):
        client.register("a.mar", "m", batch_size=1, max_batch_delay_ms=1, workers=1)

    assert ["GET"] * 3 + ["DELETE"] * 3 + ["POST"] == seen
