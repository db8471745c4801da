"""Benchmark `fuzz`: ten minutes of what schemathesis makes of TorchServe's description of its addresses, sent to all of them.

Among them are the gRPC addresses, with calls of every method that TorchServe's descriptors name.

Without a token, and with any but the address's own, nothing may be let in and nothing on the server may change; with the right
one it may only be asked (management: GET and OPTIONS), or, over gRPC, told to do what cannot be done. After it the server is
READY, answers rightly, and leaves nothing behind.
"""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import psutil

from marline.core import ServerError, StageError, read_config
from marline.deploy import Server, serving
from packages.deploy.bench.parts.grpc_calls import CALLS, Calls, called, exposed
from packages.handler.bench.parts.environments import environment
from packages.handler.bench.parts.figure import figure
from packages.handler.bench.parts.small import sums

SECONDS, END_S = 600.0, 60.0
SCHEMATHESIS = "schemathesis==4.32.5"
COUNTING = Path(__file__).parent / "parts" / "counting.py"
OPEN = ("/", "/api-description")  # TorchServe describes itself to anybody
NAMED = {"type": "string", "enum": ["sums"]}  # else hardly any request would meet a model; wrong ones are made of it as well
UNSAID = {  # addresses that the description leaves out, and their methods
    "inference": {
        "/explanations/{name}": ["post"],
        "/models/{name}/invoke": ["post"],
        "/invocations": ["post"],
        "/wfpredict/{name}": ["post"],
        "/v1/models/{name}": ["get"],
        "/v2/health/ready": ["get"],
    },
    "management": {
        "/workflows": ["get", "post"],
        "/workflows/{name}": ["get", "put", "delete"],
        "/token": ["get"],
    },
    "metrics": {},
}


@dataclass(frozen=True, slots=True)
class Pass:
    """One address fuzzed with one token; `only` names the methods where not all are sent."""

    address: str  # inference | management | metrics
    token: str  # none | inference | management
    only: tuple[str, ...] = ()

    @property
    def authorised(self) -> bool:
        return self.address in (self.token, "metrics")

    def __str__(self) -> str:
        return f"{self.address} address, {self.token} token{' '.join(['', *self.only])}"


PASSES = (
    Pass("inference", "none"),
    Pass("inference", "management"),
    Pass("inference", "inference"),
    Pass("management", "none"),
    Pass("management", "inference"),
    Pass("management", "management", ("GET", "OPTIONS")),
    Pass("metrics", "none"),
)


def figures(seconds: float = SECONDS) -> list[dict[str, Any]]:
    """What was answered in each pass, and what must be so during and after it."""
    program = environment("fuzz", [SCHEMATHESIS], ours_too=False).with_name("schemathesis")
    config = read_config(["model=digits_cnn", "deploy.open_inference=true"]).config.deploy
    share_s = seconds / (len(PASSES) + len(CALLS))
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as work:
        folder = Path(work)
        with serving(config, folder / "logs") as server:
            archive, old = sums(folder), [server.client.tokens.inference, server.client.tokens.management]
            server.client.renew()
            server.load(archive, "sums", batch_size=1, max_batch_delay_ms=10, workers=1)
            right = _answer(server)
            rest = [_fuzzed(server, told, partial(_run, server, program, told, share_s, folder)) for told in PASSES]
            calls = [
                _fuzzed(server, told, partial(called, server.client, told, share_s, old, seed))
                for seed, told in enumerate(CALLS)
            ]
            ready, seen = _ready(server, right)
            java = psutil.Process(int((server.folder / "java.pid").read_text()))
            tree = [java, *java.children(recursive=True)]
        orphans = [process.pid for process in tree if _runs(process)]
    return [
        *(row for each in (*rest, *calls) for row in each.rows),
        figure("REST requests", sum(each.sent for each in rest), "requests", None, None, len(rest), "over all passes"),
        _methods(calls),
        figure("READY, and answers as before", int(ready), "", 1, ready, 1, seen),
        figure("orphans", len(orphans), "processes", 0, not orphans, len(tree), "of the server, Java and the worker"),
    ]


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What one pass showed: of gRPC, the methods that were called, and those that answered as themselves."""

    rows: list[dict[str, Any]]
    sent: int
    asked: frozenset[str]
    served: frozenset[str]


def _fuzzed(server: Server, told: Pass | Calls, send: Callable[[], dict[str, Any]]) -> Fuzzed:
    """One pass, between two looks at all that may not change."""
    before = _state(server, batches=not told.authorised)
    counted = send()
    after = _state(server, batches=not told.authorised)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    let_in, sent = counted["let_in"], sum(counted["statuses"].values())
    answers = ", ".join(f"{count} × {status}" for status, count in sorted(counted["statuses"].items()))
    rows = [
        figure(f"{told}: sent", sent, "requests", 1, sent > 0, sent, answers),
        figure(f"{told}: changed", len(changed), "things", 0, not changed, len(before), ", ".join(changed[:5])),
    ]
    if not told.authorised:
        names = ", ".join(sorted(let_in)[:5])
        rows.append(figure(f"{told}: let in", sum(let_in.values()), "requests", 0, not let_in, sent, names))
    return Fuzzed(rows, sent, frozenset(counted.get("asked", ())), frozenset(counted.get("served", ())))


def _methods(calls: Sequence[Fuzzed]) -> dict[str, Any]:
    """Whether every gRPC method there is was called by strangers, and answered who has the token as itself, not as unknown."""
    names = {method.full_name for told in CALLS for method in exposed(told.address)}
    asked, served = set[str](), set[str]()
    for each, told in zip(calls, CALLS, strict=True):
        (served if told.authorised else asked).update(each.served if told.authorised else each.asked)
    missing, sent = sorted(names - (asked & served)), sum(each.sent for each in calls)
    note = f"{sent} calls; {', '.join(missing) or 'all'} {'not reached' if missing else 'called with its token and without'}"
    return figure("gRPC methods reached", len(asked & served), "methods", len(names), not missing, sent, note)


def _run(server: Server, program: Path, told: Pass, seconds: float, folder: Path) -> dict[str, Any]:
    """Fuzz for so many seconds; the statuses of the answers, and what was let in."""
    client = server.client
    url = {"inference": client.inference_url, "management": client.management_url, "metrics": client.metrics_url}[told.address]
    description, counted = folder / f"{told.address}.json", folder / "counted.json"
    description.write_text(json.dumps(_described(url, UNSAID[told.address])))
    counted.unlink(missing_ok=True)
    words = ["run", str(description), "--url", url, "--max-time", str(round(seconds)), "--phases", "coverage,fuzzing,stateful"]
    words += ["--continue-on-failure", "--max-failures", "1000000"]
    words += ["--checks", "not_a_server_error", "--suppress-health-check", "all", "--request-timeout", "10"]
    words += ["--generation-database", "none", "--no-color"]
    for method in told.only:
        words += ["--include-method", method]
    keys = {"none": None, "inference": client.tokens.inference, "management": client.tokens.management}
    if keys[told.token] is not None:
        words += ["--header", f"Authorization: Bearer {keys[told.token]}"]
    own = {"PATH": os.environ["PATH"], "HOME": str(folder), "COUNTED": str(counted)}
    own |= {"SCHEMATHESIS_HOOKS": COUNTING.stem, "PYTHONPATH": str(COUNTING.parent)}
    with (folder / "fuzz.log").open("w") as log:
        ran = subprocess.run(
            [str(program), *words], env=own, cwd=folder, stdout=log, stderr=log, timeout=seconds + END_S, check=False
        )
    if ran.returncode not in (0, 1):  # 1 where an answer was a 5xx, which some are
        raise StageError(f"schemathesis could not ask the {told}: {(folder / 'fuzz.log').read_text()[-600:]}")
    found: dict[str, Any] = json.loads(counted.read_text())
    found["let_in"] = {name: count for name, count in found["let_in"].items() if name.split()[1] not in OPEN}
    return found


def _described(url: str, unsaid: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """TorchServe's own OpenAPI description, and what it leaves out."""
    found: dict[str, Any] = httpx2.options(url, timeout=10).json()
    anything: dict[str, Any] = {"requestBody": {"content": {"application/json": {"schema": {}}}}}
    query = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("url", "type", "workflow_name")]
    for path, methods in unsaid.items():
        name = [{"name": "name", "in": "path", "required": True, "schema": NAMED}] * ("{name}" in path)
        told = {"parameters": [*name, *query], "responses": {"200": {"description": "answered"}}}
        found["paths"][path] = {method: {**told, **(anything if method in ("post", "put") else {})} for method in methods}
    for operation in (operation for methods in found["paths"].values() for operation in methods.values()):
        for parameter in operation.get("parameters", ()):
            if parameter["name"] == "model_name":
                parameter["schema"] = NAMED
    return found


def _state(server: Server, *, batches: bool) -> Mapping[str, str]:
    """What nobody may change who is not allowed to: models, workers, and every file of the server's."""
    names = [told["modelName"] for told in _get(server, "/models")["models"]]
    state = {f"model {name}": _told(server, name) for name in names}
    for file in sorted(server.folder.rglob("*")):
        if file.is_file() and (batches or server.batches not in file.parents):
            state[str(file.relative_to(server.folder))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return state


def _told(server: Server, name: str) -> str:
    """What is said of a model, whatever its name; its queue is anybody's."""
    told = _get(server, f"/models/{quote(name, safe='')}")
    return json.dumps({**told[0], "jobQueueStatus": None} if isinstance(told, list) else told)


def _get(server: Server, path: str) -> Any:
    headers = {"Authorization": f"Bearer {server.client.tokens.management}"}
    return httpx2.get(server.client.management_url + path, headers=headers, timeout=30).json()


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)  # one that its new parent has not yet noticed is over
    except psutil.NoSuchProcess:
        return False


def _ready(server: Server, right: tuple[int, bytes]) -> tuple[bool, str]:
    """Whether the model is READY and answers as it did; a worker may say the one and never do the other."""
    try:
        status = server.client.describe("sums")
        return status is not None and status.ready == 1 and _answer(server) == right, f"{status}"
    except ServerError as error:
        return False, str(error)


def _answer(server: Server) -> tuple[int, bytes]:
    reply = server.client.predict("sums", b"[1, 2, 3, 4]", "application/json")
    return reply.status, reply.body
