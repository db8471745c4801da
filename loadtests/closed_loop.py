"""Users who each send again as soon as they are answered, without a page; one row for each answer.

A closed loop: it slows down when the server does, so it shows throughput and never decides about latency (see open_loop.py).
Knows HTTP and locust; knows no model and nothing of this project.

Reads the plan that the variable MARLINE_PLAN names: `url` (plain HTTP), `token`, `payloads`, `timeout_s`, `out`.
Writes `out` once, whole, at the end: `began_s`, and rows of [finished_s, error], on the monotonic clock; no error is "".
"""

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from locust import FastHttpUser, events, task

PLAN = json.loads(Path(os.environ["MARLINE_PLAN"]).read_text())
URL = urlsplit(PLAN["url"])
TOKEN = {"Authorization": f"Bearer {PLAN['token']}"} if PLAN["token"] else {}
PAYLOADS = itertools.cycle(
    [(Path(one["file"]).read_bytes(), {"Content-Type": one["content_type"], **TOKEN}) for one in PLAN["payloads"]]
)
BEGAN_S: list[float] = []
ROWS: list[tuple[float, str]] = []


class Caller(FastHttpUser):
    """Sends the next of the payloads, waits for the answer, and so on."""

    host = f"{URL.scheme}://{URL.netloc}"
    connection_timeout = network_timeout = PLAN["timeout_s"]

    @task
    def predict(self) -> None:
        body, headers = next(PAYLOADS)
        self.client.post(URL.path, data=body, headers=headers)


@events.test_start.add_listener
def began(**_: Any) -> None:
    """Note when the first user could send."""
    BEGAN_S.append(time.monotonic())


@events.request.add_listener
def ended(response: Any, exception: Exception | None, **_: Any) -> None:
    """Note when an answer was there, and what was wrong with it."""
    status = getattr(response, "status_code", 0)
    error = "" if exception is None and status == 200 else f"HTTP {status}" if status else type(exception).__name__
    ROWS.append((time.monotonic(), error))


@events.quitting.add_listener
def write(**_: Any) -> None:
    """Write everything, so that the file is there whole or not at all."""
    out = Path(PLAN["out"])
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(json.dumps({"schema": 1, "began_s": BEGAN_S[0], "rows": ROWS}))
    partial.replace(out)
