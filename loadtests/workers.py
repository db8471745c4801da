"""The master's side of several sending processes, here or on other machines: split the load, begin at once, collect every row.

Locust's own master and workers; the plan goes to them as a message of ours, so a worker needs nothing but this folder:
`locust --worker --master-host HOST -f sender.py`. Arrival i is sent by worker i mod N. They begin at one instant of the wall
clock, so their clocks must agree (NTP); each times its own requests by its own clock. What they send back is merged row by
row. The rows of a worker that is missing at the end are there as unsent ones.
"""

import json
import logging
import time
from pathlib import Path
from typing import Any

import gevent
from locust import events
from rows import write

AHEAD_S = 1.5  # from the plan's being sent to the first instant: for connections to be opened
ALLOWANCE_S = 10.0  # beyond the load and its last answer, for the rows to arrive
POLL_S = 0.1


def conduct(environment: Any, plan: dict[str, Any]) -> None:
    """Have the workers play the plan as soon as locust begins, write what they send back, end the run."""
    runner, back = environment.runner, {}

    def heard(msg: Any, **_: Any) -> None:
        back[msg.data["worker"]] = msg.data.get("rows")
        if "failed" in msg.data:
            logging.getLogger(__name__).error("worker %d failed:\n%s", msg.data["worker"], msg.data["failed"])

    def begin(**_: Any) -> None:
        clients = sorted(runner.clients.ready, key=lambda client: runner.get_worker_index(client.id))[: plan["workers"]]
        names, starts_at = [client.id for client in clients], time.time() + AHEAD_S
        for number, name in enumerate(names):
            runner.send_message("plan", _part(plan, number, len(names)) | {"starts_at": starts_at}, name)
        gevent.spawn(_collect, environment, plan, names, back)

    environment.process_exit_code = 1  # until there are rows
    runner.register_message("rows", heard)
    events.test_start.add_listener(begin)


def _part(plan: dict[str, Any], number: int, workers: int) -> dict[str, Any]:
    """What one worker is told: its arrivals and users, no file of ours."""
    users = len(range(number, plan["users"], workers))
    own = {"schedule": plan["schedule"][number::workers], "users": users, "first": number, "step": workers, "token_file": None}
    return {name: plan[name] for name in ("url", "token", "payloads", "seconds", "timeout_s", "answers")} | own


def _collect(environment: Any, plan: dict[str, Any], names: list[str], back: dict[int, Any]) -> None:
    runner, token = environment.runner, plan["token"]
    deadline = time.monotonic() + AHEAD_S + plan["seconds"] + plan["timeout_s"] + ALLOWANCE_S
    try:
        while time.monotonic() < deadline and any(
            number not in back and name not in _gone(runner) for number, name in enumerate(names)
        ):
            gevent.sleep(POLL_S)
            if plan["token_file"] and (fresh := json.loads(Path(plan["token_file"]).read_text())["token"]) != token:
                token = fresh
                runner.send_message("token", token)
        write([back.get(number) for number in range(len(names))], plan)
        environment.process_exit_code = 0
    except Exception:  # the log and the exit code must have it
        logging.getLogger(__name__).exception("the workers' rows were not written")
    finally:
        runner.quit()


def _gone(runner: Any) -> set[str]:
    """Workers whose heartbeat stopped, or who have left."""
    there = {client.id for client in runner.clients.all}
    return {client.id for client in runner.clients.missing} | (set(runner.worker_indexes) - there)
