"""Says how a model stands on the TorchServe beside it: ready, loading, crash-looping or dead. Python's own library only.

`python probe.py`             exit code 0 ready, 1 loading, 2 crash-looping, 3 dead
`python probe.py liveness`    0 unless a restart is the only help: crash-looping or dead
`python probe.py readiness`   0 when ready, and so `startup`

TorchServe's /ping says Healthy while no worker answers, so each worker is asked for. Which process it had is noted between
calls: one that was replaced three times within a minute crashes again and again, though it may just now say READY.
`container.json` beside this file says what to ask, and where TorchServe's keys are.
"""

import http.client
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

CODES = {"ready": 0, "loading": 1, "crash-looping": 2, "dead": 3}
PASSES = {"liveness": ("ready", "loading"), "readiness": ("ready",), "startup": ("ready",), "": ("ready",)}
WINDOW_S, RESTARTS = 60.0, 3
DEADLINE_S = 3.0


def main(words: list[str]) -> int:
    """Print the state; the exit code is the role's, or without one the state's own."""
    role = words[0] if words else ""
    if role not in PASSES:
        print(f"probe: {role!r} is none of {', '.join(filter(None, PASSES))}", file=sys.stderr)
        return 64
    found = state(json.loads(Path(__file__).with_name("container.json").read_text()))
    print(found)
    return 0 if found in PASSES[role] else CODES[found]


def state(told: dict[str, Any]) -> str:
    """How the model of `container.json` stands."""
    home = Path(told["run"])
    try:
        keys = json.loads((home / "key_file.json").read_text())
        code, body = _ask(told["management"], f"/models/{told['model']}", keys["management"]["key"])
        if code not in {200, 404}:  # 404: its archive is still being unpacked, or could not be
            return "dead"
        workers = json.loads(body)[0]["workers"] if code == 200 else []
        if _restarts(home / f"probe-{told['model']}.json", {each["id"]: each["pid"] for each in workers}) >= RESTARTS:
            return "crash-looping"
        if workers and sum(each["status"] == "READY" for each in workers) >= told["workers"]:
            return "ready"
        # 500 once TorchServe has given a worker up for good; before, and while it loads, 200
        return "loading" if _ask(told["inference"], "/ping", keys["inference"]["key"])[0] == 200 else "dead"
    except (OSError, ValueError, KeyError, IndexError, http.client.HTTPException):
        return "dead"


def _ask(address: str, path: str, key: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def _restarts(file: Path, pids: dict[str, int]) -> int:
    """The most often any worker got another process within the window, as far as calls of the probe have seen it."""
    try:
        seen = json.loads(file.read_text())
    except (OSError, ValueError):
        seen = {}
    now = time.time()
    for worker, pid in pids.items():
        before = seen.setdefault(worker, {"pid": pid, "changes": []})
        changed = [now] if pid > 0 and pid != before["pid"] else []
        recent = [when for when in before["changes"] if now - when < WINDOW_S]
        seen[worker] = {"pid": pid if pid > 0 else before["pid"], "changes": recent + changed}
    partial = file.with_suffix(f".{os.getpid()}")  # probes run beside each other
    partial.write_text(json.dumps(seen))
    partial.replace(file)
    return max((len(told["changes"]) for told in seen.values()), default=0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
