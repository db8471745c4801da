"""Send requests at instants drawn beforehand, whatever the server does, and keep one row for each.

An arrival never waits for an earlier answer, and latency counts from the instant a request was due: a server that pauses
is charged for everyone who had to wait. Knows HTTP and locust; knows no model and nothing of this project.

Reads the plan that the variable MARLINE_PLAN names: `url` (plain HTTP), `token`, `token_file`, `payloads`, `schedule`,
`timeout_s`, `answers` (whether to keep their bodies), `out`. A renewed token replaces the old one at once, so a request whose
token is refused is sent again with the one that is in `token_file` by then; that counts as waiting. Writes `out` once, whole,
when the last request is over. All instants are seconds since the start on the monotonic clock.
"""

import ctypes
import gc
import json
import logging
import os
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from gevent import socket
from gevent.pool import Group
from geventhttpclient.response import HTTPParseError, HTTPSocketResponse
from locust import User, task

OPENED = 32  # connections made before the first request; more are opened when so many are in use
SAMPLE_S = 0.05
SLICE_NS = 100_000  # the shortest that the kernel grants
MEANINGS = {  # TorchServe's answers that say more of the load than of the model, by their status and a word of theirs
    (503, "has no worker to serve"): "overload",  # the queue is full
    (507, "Out of resources"): "oom",  # memory ended, the machine's or the GPU's: smaller batches may be served
}
RENEWAL_S = 1.0  # in which the file must have the token that made ours a wrong one
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the number of the system call
COLUMNS = ("payload", "scheduled_s", "sent_s", "finished_s", "status", "error", "bytes", "answer", "samples")

PLAN = json.loads(Path(os.environ["MARLINE_PLAN"]).read_text())
URL = urlsplit(PLAN["url"])


class OpenLoop(User):
    """The one user: it plays the schedule and ends the run."""

    @task
    def play(self) -> None:
        self.environment.process_exit_code = 1  # until the schedule was played to its end
        try:
            self._play()
            self.environment.process_exit_code = 0
        except Exception:  # locust would swallow it: the log and the exit code must not
            logging.getLogger(__name__).exception("the schedule was not played to its end")
        finally:
            self.environment.runner.quit()

    def _play(self) -> None:
        requests = Requests([_request(payload) for payload in PLAN["payloads"]], PLAN["token"])
        rows = Rows([float(line) for line in Path(PLAN["schedule"]).read_text().split()], len(requests.texts))
        try:
            self._send_all(requests, rows)
        finally:  # also when locust is told to stop: what was not sent is a row as well
            rows.write(Path(PLAN["out"]))

    def _send_all(self, requests: "Requests", rows: "Rows") -> None:
        connections = _connections(min(OPENED, len(rows.scheduled_s)))
        alarm, sending = Alarm(), Group()
        _ask_for_early_turns()
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection would delay every request that is due meanwhile
        start = time.monotonic() + SAMPLE_S
        sampler = gevent.spawn(_sample, rows, start)
        for index, due_s in enumerate(rows.scheduled_s):
            if start + due_s > time.monotonic():
                alarm.wait_until(start + due_s)
            sending.spawn(self._send, index, start, requests, connections, rows)
        sending.join(PLAN["timeout_s"] + 1)
        sampler.kill()
        rows.sample(time.monotonic() - start)

    def _send(self, index: int, start: float, requests: "Requests", connections: "Connections", rows: "Rows") -> None:
        rows.begin(index, time.monotonic() - start)
        try:
            with gevent.Timeout(PLAN["timeout_s"]):
                token = requests.token
                status, body = connections.exchange(requests.text(rows.payload[index]))
                while status == 400 and b"InvalidKeyException" in body and requests.renewed(token):
                    token = requests.token
                    rows.resent += 1
                    status, body = connections.exchange(requests.text(rows.payload[index]))
            error = "" if status == 200 else _error_class(status, body)
        except (gevent.Timeout, OSError, HTTPParseError) as problem:
            status, body, error = 0, b"", type(problem).__name__
        rows.end(index, time.monotonic() - start, status, error, body)
        self.environment.events.request.fire(
            request_type="POST",
            name=URL.path,
            response_time=(rows.finished_s[index] - rows.scheduled_s[index]) * 1000,  # from when it was due, here too
            response_length=len(body),
            exception=RuntimeError(error) if error else None,
            context={},
        )


@dataclass(slots=True)
class Rows:
    """What happened to each request, by its position in the schedule, and to the sender meanwhile."""

    scheduled_s: list[float]
    payloads: int
    payload: list[int] = field(init=False)
    sent_s: list[Any] = field(init=False)
    finished_s: list[Any] = field(init=False)
    status: list[int] = field(init=False)
    error: list[str] = field(init=False)
    answer: list[str] = field(init=False)
    bytes: list[int] = field(init=False)
    # instant, requests in flight, their integral over time (request-seconds), CPU seconds of this process
    samples: list[tuple[float, int, float, float]] = field(default_factory=list)
    resent: int = 0  # requests whose token had been renewed meanwhile
    _in_flight: int = 0
    _request_s: float = 0.0
    _changed_s: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.scheduled_s)
        self.payload = [index % self.payloads for index in range(count)]
        self.sent_s, self.finished_s = [None] * count, [None] * count
        self.status, self.error, self.bytes, self.answer = [0] * count, ["Unsent"] * count, [0] * count, [""] * count

    def begin(self, index: int, now_s: float) -> None:
        """A request is due and taken up; its time in flight began when it was due."""
        self._change(now_s, 1)
        self._request_s += now_s - self.scheduled_s[index]
        self.sent_s[index], self.error[index] = now_s, "Unfinished"

    def end(self, index: int, now_s: float, status: int, error: str, body: Any) -> None:
        """A request is over, answered or not."""
        self._change(now_s, -1)
        self.finished_s[index], self.status[index], self.error[index] = now_s, status, error
        self.bytes[index] = len(body)
        if PLAN["answers"]:
            self.answer[index] = body.decode(errors="replace")

    def sample(self, now_s: float) -> None:
        """Note how much is in flight and how much CPU time this process has used."""
        self._change(now_s, 0)
        self.samples.append((now_s, self._in_flight, self._request_s, time.process_time()))

    def write(self, out: Path) -> None:
        """Write everything, so that the file is there whole or not at all."""
        partial = out.with_name(f".{out.name}.partial")
        partial.write_text(json.dumps({"schema": 1, "resent": self.resent} | {name: getattr(self, name) for name in COLUMNS}))
        partial.replace(out)

    def _change(self, now_s: float, by: int) -> None:
        self._request_s += self._in_flight * (now_s - self._changed_s)
        self._changed_s = now_s
        self._in_flight += by


@dataclass(slots=True)
class Requests:
    """What is sent for each payload, with the token as it is now."""

    texts: list[tuple[bytes, bytes]]  # what comes before and after the line with the token
    token: str | None

    def text(self, payload: int) -> bytes:
        """One request."""
        before, after = self.texts[payload]
        return before + (f"Authorization: Bearer {self.token}\r\n".encode() if self.token else b"") + after

    def renewed(self, refused: str | None) -> bool:
        """Take the token that is in the file, if that comes to be another than the refused one within a second."""
        for _ in range(round(RENEWAL_S / SAMPLE_S)):
            if self.token != refused:  # another request has seen to it
                return True
            if not PLAN["token_file"]:
                return False
            self.token = json.loads(Path(PLAN["token_file"]).read_text())["token"]
            if self.token == refused:
                gevent.sleep(SAMPLE_S)
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


class Alarm:
    """A kernel timer that gevent can wait for: epoll's own timeout counts whole milliseconds and fires up to one late."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        self._ready = gevent.get_hub().loop.io(self._timer, 1)

    def wait_until(self, instant: float) -> None:
        """Sleep until `time.monotonic()` is `instant`; at once when that is past."""
        seconds, nanoseconds = divmod(int(instant * 1e9), 10**9)
        once = (ctypes.c_long * 4)(0, 0, seconds, nanoseconds)  # struct itimerspec: no interval, then the instant
        if self._libc.timerfd_settime(self._timer, 1, ctypes.byref(once), None):  # 1 is TFD_TIMER_ABSTIME
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        socket.wait(self._ready)
        os.read(self._timer, 8)


def _ask_for_early_turns() -> None:
    """Ask Linux to run this process as soon as it wakes: in real time where we may (root), else in short slices (since 6.12).

    With every core busy, a sender of the default slice waits for the next timer tick, 4 ms at 250 Hz. It takes no more of the
    CPU from the server so, it only takes it on time; children get the usual turns back (sched(7)).
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        number = SCHED_SETATTR.get(os.uname().machine)
        if number is not None:
            # struct sched_attr: size, policy, flags, nice, priority, runtime (the slice), deadline, period
            attributes = struct.pack("=IIQiIQQQ", 48, os.SCHED_OTHER, 0, 0, 0, SLICE_NS, 0, 0)
            ctypes.CDLL(None).syscall(number, 0, attributes, 0)


def _request(payload: dict[str, str]) -> tuple[bytes, bytes]:
    body = Path(payload["file"]).read_bytes()
    before = [f"POST {URL.path} HTTP/1.1", f"Host: {URL.netloc}", f"Content-Type: {payload['content_type']}"]
    after = [f"Content-Length: {len(body)}", "", ""]
    return "".join(f"{line}\r\n" for line in before).encode("latin-1"), "\r\n".join(after).encode("latin-1") + body


def _connections(count: int) -> Connections:
    """Open connections ahead, so that the first requests pay for none; where that fails, the requests will tell."""
    family = socket.getaddrinfo(URL.hostname, URL.port or 80, type=socket.SOCK_STREAM)
    connections = Connections(family[0][4][:2], [])
    opening = [gevent.spawn(connections.connect) for _ in range(count)]
    gevent.joinall(opening, timeout=PLAN["timeout_s"])
    connections.idle.extend(one.value for one in opening if one.ready() and one.successful())
    gevent.killall(opening)
    return connections


def _sample(rows: Rows, start: float) -> None:
    while True:
        gevent.sleep(SAMPLE_S)
        rows.sample(time.monotonic() - start)


def _error_class(status: int, body: bytes) -> str:
    """`HTTP 503 overload`: the status, and what TorchServe's body means by it or else the type it names."""
    try:
        told = json.loads(body)
        message, named = told.get("message", ""), told["type"]
        means = [means for (number, words), means in MEANINGS.items() if number == status and words in message]
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"HTTP {status}"
    return f"HTTP {status} {means[0] if means else named}"
