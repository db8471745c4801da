"""Send requests at instants drawn beforehand, whatever the server does, and keep one row for each.

An arrival never waits for an earlier answer, and latency counts from the instant a request was due: a server that pauses
is charged for everyone who had to wait. Told of `users` instead, it lets each of them send again as soon as he is answered: a
closed loop, which slows down when the server does, so it shows throughput and decides nothing about latency.
Knows HTTP and locust; knows no model and nothing of this project.

Reads the plan that the variable MARLINE_PLAN names: `url` (plain HTTP), `token`, `token_file`, `payloads`, `schedule`, `users`,
`seconds`, `timeout_s`, `answers` (whether to keep their bodies), `out`. A renewed token replaces the old one at once, so a
request whose token is refused is sent again with the one that is in `token_file` by then; that counts as waiting. Writes `out`
once, whole, when the last request is over. All instants are seconds since the start on the monotonic clock.

As a master of locust's (`--master`) it sends nothing itself, see workers.py; as a worker it has no file: the master tells it.
"""

import ctypes
import gc
import json
import logging
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
from exchange import Connections, Requests, answer_class, connected, failure_class, texts
from gevent import socket
from gevent.pool import Group
from geventhttpclient.response import HTTPParseError
from locust import User, events, task
from locust.runners import MasterRunner, WorkerRunner
from rows import Rows, write
from workers import AHEAD_S, conduct

OPENED = 32  # connections made before the first request; more are opened when so many are in use
SAMPLE_S = 0.05
SLICE_NS = 100_000  # the shortest that the kernel grants
SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # the number of the system call


@dataclass(slots=True)
class Part:
    """What one process sends, and what became of it. `plan` holds the payloads' bodies and the instants themselves."""

    plan: dict[str, Any]
    request_event: Callable[..., None]
    rows: Rows = field(init=False)
    requests: Requests = field(init=False)
    connections: Connections = field(init=False)

    def __post_init__(self) -> None:
        plan = self.plan
        self.rows = Rows(len(plan["payloads"]), plan["answers"], plan.get("first", 0), plan.get("step", 1))
        self.requests = Requests(texts(plan["url"], plan["payloads"]), plan["token"], plan["token_file"])

    def play(self) -> None:
        """Send everything, and wait for the last answer as long as one may take."""
        plan, rows = self.plan, self.rows
        for due_s in plan["schedule"]:
            rows.add(due_s)
        self.connections = connected(plan["url"], min(OPENED, max(plan["users"], len(plan["schedule"]))), plan["timeout_s"])
        _ask_for_early_turns()
        gc.collect()
        gc.freeze()
        gc.disable()  # a collection would delay every request that is due meanwhile
        start = time.monotonic() + (plan["starts_at"] - time.time() if "starts_at" in plan else SAMPLE_S)
        sampler = gevent.spawn(self._sample, start)
        sending = self._users(start) if plan["users"] else self._schedule(start)
        sending.join(plan["timeout_s"] + 1)
        sampler.kill()
        rows.sample(time.monotonic() - start)

    def _schedule(self, start: float) -> Group:
        alarm, sending = Alarm(), Group()
        for index, due_s in enumerate(self.plan["schedule"]):
            if start + due_s > time.monotonic():
                alarm.wait_until(start + due_s)
            sending.spawn(self._send, index, start)
        return sending

    def _users(self, start: float) -> Group:
        gevent.sleep(max(0.0, start - time.monotonic()))
        sending, end = Group(), start + self.plan["seconds"]
        for _ in range(self.plan["users"]):
            sending.spawn(self._use, start, end)
        gevent.sleep(max(0.0, end - time.monotonic()))
        return sending

    def _use(self, start: float, end: float) -> None:
        while (now := time.monotonic()) < end:
            index = self.rows.add(now - start)
            self._send(index, start)
            if not self.rows.status[index]:  # nobody answered: ask again, but not ten thousand times a second
                gevent.sleep(SAMPLE_S)

    def _send(self, index: int, start: float) -> None:
        rows, requests = self.rows, self.requests
        rows.begin(index, time.monotonic() - start)
        try:
            with gevent.Timeout(self.plan["timeout_s"]):
                token = requests.token
                status, body = self.connections.exchange(requests.text(rows.payload[index]))
                while status == 400 and b"InvalidKeyException" in body and requests.renewed(token):
                    token = requests.token
                    rows.resent += 1
                    status, body = self.connections.exchange(requests.text(rows.payload[index]))
            error = answer_class(status, body)
        except (gevent.Timeout, OSError, HTTPParseError) as problem:
            status, body, error = 0, b"", failure_class(problem)
        rows.end(index, time.monotonic() - start, status, error, body)
        self.request_event(
            request_type="POST",
            name=urlsplit(self.plan["url"]).path,
            response_time=(rows.finished_s[index] - rows.scheduled_s[index]) * 1000,  # from when it was due, here too
            response_length=len(body),
            exception=RuntimeError(error) if error else None,
            context={},
        )

    def _sample(self, start: float) -> None:
        gevent.sleep(max(0.0, start - time.monotonic()))
        while True:
            self.rows.sample(time.monotonic() - start)
            gevent.sleep(SAMPLE_S)


class Sender(User):
    """The one user of a process that is alone: it plays the plan and ends the run. A worker's has nothing to do."""

    @task
    def play(self) -> None:
        if isinstance(self.environment.runner, WorkerRunner):
            gevent.sleep(1)
            return
        self.environment.process_exit_code = 1  # until the plan was played to its end
        try:
            self._play()
            self.environment.process_exit_code = 0
        except Exception:  # locust would swallow it: the log and the exit code must not
            logging.getLogger(__name__).exception("the plan was not played to its end")
        finally:
            self.environment.runner.quit()

    def _play(self) -> None:
        plan = read_plan()
        part = Part(plan, self.environment.events.request.fire)
        try:
            part.play()
        finally:  # also when locust is told to stop: what was not sent is a row as well
            write([part.rows.told()], plan)


def read_plan() -> dict[str, Any]:
    """The plan, with what is in the files it names; a token that has a file of its own is in that alone."""
    plan = json.loads(Path(os.environ["MARLINE_PLAN"]).read_text())
    payloads = [(payload["content_type"], Path(payload["file"]).read_bytes()) for payload in plan["payloads"]]
    token = json.loads(Path(plan["token_file"]).read_text())["token"] if plan["token_file"] else plan["token"]
    schedule = [float(line) for line in Path(plan["schedule"]).read_text().split()]
    return plan | {"token": token, "payloads": payloads, "schedule": schedule}


@events.init.add_listener
def take_a_place(environment: Any, runner: Any, **_: Any) -> None:
    """As the master, conduct the workers once locust has them all; as a worker, wait to be told what to send."""
    if isinstance(runner, MasterRunner):
        conduct(environment, read_plan())
    elif isinstance(runner, WorkerRunner):
        parts: list[Part] = []

        def play(msg: Any, **_: Any) -> None:
            number = msg.data["first"]
            try:
                ahead_s = msg.data["starts_at"] - time.time()
                assert 0 < ahead_s < 2 * AHEAD_S, f"by the clock here the start is in {ahead_s:.1f} s; do the clocks agree?"
                parts.append(Part(msg.data, environment.events.request.fire))
                parts[-1].play()
                runner.send_message("rows", {"worker": number, "rows": parts[-1].rows.told()})
            except Exception as problem:  # whatever it is, the master must hear of it
                runner.send_message("rows", {"worker": number, "failed": f"{type(problem).__name__}: {problem}"})

        def renew(msg: Any, **_: Any) -> None:
            for part in parts:
                part.requests.token = msg.data

        runner.register_message("plan", play, concurrent=True)
        runner.register_message("token", renew)


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
