"""Users who each send again as soon as they are answered, for locust's own web page.

A closed loop: it slows down when the server does, so it shows throughput and never decides about latency (see sender.py).
Reads the plan that the variable MARLINE_PLAN names: `url`, `token`, `token_file`, `payloads`, `timeout_s`.
"""

import json
import os
import random
from pathlib import Path
from urllib.parse import urlsplit

from locust import FastHttpUser, task

PLAN = json.loads(Path(os.environ["MARLINE_PLAN"]).read_text())
URL = urlsplit(PLAN["url"])
PAYLOADS = [(Path(one["file"]).read_bytes(), {"Content-Type": one["content_type"]}) for one in PLAN["payloads"]]


def token() -> dict[str, str]:
    """The header with the token as it is now: somebody may look on for longer than one is valid."""
    now = json.loads(Path(PLAN["token_file"]).read_text())["token"] if PLAN["token_file"] else PLAN["token"]
    return {"Authorization": f"Bearer {now}"} if now else {}


class Caller(FastHttpUser):
    """Sends one of the samples, waits for the answer, and so on."""

    host = f"{URL.scheme}://{URL.netloc}"
    connection_timeout = network_timeout = PLAN["timeout_s"]

    @task
    def predict(self) -> None:
        body, headers = random.choice(PAYLOADS)
        self.client.post(URL.path, data=body, headers={**headers, **token()})
