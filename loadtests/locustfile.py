"""Users who each send again as soon as they are answered, for locust's own web page.

A closed loop: it slows down when the server does, so it shows throughput and never decides about latency (see open_loop.py).
Reads the plan that the variable MARLINE_PLAN names: `url`, `token`, `payloads`, `timeout_s`.
"""

import json
import os
import random
from pathlib import Path
from urllib.parse import urlsplit

from locust import FastHttpUser, task

PLAN = json.loads(Path(os.environ["MARLINE_PLAN"]).read_text())
URL = urlsplit(PLAN["url"])
TOKEN = {"Authorization": f"Bearer {PLAN['token']}"} if PLAN["token"] else {}
PAYLOADS = [(Path(one["file"]).read_bytes(), {"Content-Type": one["content_type"], **TOKEN}) for one in PLAN["payloads"]]


class Caller(FastHttpUser):
    """Sends one of the samples, waits for the answer, and so on."""

    host = f"{URL.scheme}://{URL.netloc}"
    connection_timeout = network_timeout = PLAN["timeout_s"]

    @task
    def predict(self) -> None:
        body, headers = random.choice(PAYLOADS)
        self.client.post(URL.path, data=body, headers=headers)
