"""An archive of ours on a plain TorchServe of another environment, which has torch and nothing of ours.

The server is started with TorchServe's own command; only its addresses, its folders and its Java are told.
"""

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marline.archive import extract, read_mar
from marline.core import MarlineError, NotReady, project_root, write_json
from marline.deploy import Client, prove
from marline.deploy._guard import guard_command
from marline.deploy._settings import Ports, default_java_home, free_ports
from marline.deploy._tokens import read_tokens
from marline.handler import read_golden
from packages.handler.bench.parts.archives import Life, life
from packages.handler.bench.parts.environments import environment, lend
from packages.handler.bench.parts.figure import figure

UNDECLARED = ("pyyaml",)  # ts.utils.util and the metrics import yaml; torchserve's metadata does not say so
ABSENT = ("marline", "captum", "torchvision", "base_handler", "transformers")
READY_S, POLL_S = 90.0, 0.1


def elsewhere() -> list[dict[str, Any]]:
    """1 where digits_cnn answers its golden pairs there."""
    made = life("digits_cnn")
    told = read_mar(made.archive).manifest["model"].get("requirementsFile")
    declared = extract(made.archive, told).decode().split() if told else []
    constraints = ["-c", str(project_root() / "constraints.txt")]
    python = environment("plain", [*constraints, "torchserve", *UNDECLARED, *declared], ours_too=False)
    lent = lend(python, "torch")
    present = _importable(python)
    pairs = read_golden(made.exported.path("golden.json"))
    said = f"there but should not be: {', '.join(present)}" if present else ""
    if not said:
        try:
            with plain_torchserve(python, made) as client:
                prove(client, made.archived.model, pairs, atol=made.exported.facts["atol"], rtol=made.exported.facts["rtol"])
        except MarlineError as error:
            said = str(error)[:400]
    installed = f"installed: torchserve and {', '.join(UNDECLARED)}, which it does not declare"
    asked = f"the archive declares {', '.join(declared) or 'nothing'}"
    note = f"{installed}; {asked}; lent: {', '.join(lent)}"
    name = "digits_cnn answers its golden pairs on a plain TorchServe"
    return [figure(name, float(not said), "", 1, not said, len(pairs), f"{note}{said and '; ' + said}")]


def _importable(python: Path) -> list[str]:
    asked = f"import importlib.util as u, json; print(json.dumps([n for n in {ABSENT!r} if u.find_spec(n)]))"
    ran = subprocess.run([str(python), "-I", "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    found: list[str] = json.loads(ran.stdout)
    return found


@contextmanager
def plain_torchserve(python: Path, made: Life) -> Iterator[Client]:
    """TorchServe as its own command starts it with that Python, once the model's workers are READY."""
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as kept:
        folder, logs, ports = Path(kept, "server"), Path(kept, "logs"), free_ports()
        for place in ("store", "temp"):
            (folder / place).mkdir(parents=True)
        logs.mkdir()
        (folder / "store" / made.archive.name).symlink_to(made.archive.resolve())
        (folder / "config.properties").write_text(_addresses(ports))
        told = {"command": _command(python, folder, made), "env": _environment(python, folder), "logs": str(logs)}
        write_json(folder / "guard.json", told)
        guard = subprocess.Popen(
            guard_command(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield _ready(guard, folder, logs, ports, made.archived.model)
        finally:
            assert guard.stdin is not None
            guard.stdin.close()
            guard.wait(30)


def _addresses(ports: Ports) -> str:
    values = {
        "inference_address": f"http://127.0.0.1:{ports.inference}",
        "management_address": f"http://127.0.0.1:{ports.management}",
        "metrics_address": f"http://127.0.0.1:{ports.metrics}",
        "grpc_inference_port": ports.grpc_inference,
        "grpc_management_port": ports.grpc_management,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items())


def _command(python: Path, folder: Path, made: Life) -> list[str]:
    model = f"{made.archived.model}={made.archive.name}"
    torchserve = [str(python), str(python.parent / "torchserve"), "--start", "--foreground", "--ncs"]
    return [*torchserve, "--ts-config", "config.properties", "--model-store", str(folder / "store"), "--models", model]


def _environment(python: Path, folder: Path) -> dict[str, str]:
    java, temp = default_java_home(), str(folder / "temp")
    path = f"{python.parent}:{java / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(folder), "JAVA_HOME": str(java), "TMPDIR": temp, "TEMP": temp}


def _ready(guard: subprocess.Popen[bytes], folder: Path, logs: Path, ports: Ports, model: str) -> Client:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and guard.poll() is None:
        time.sleep(POLL_S)
        try:
            tokens = read_tokens(folder / "key_file.json")
        except (FileNotFoundError, ValueError, KeyError):  # not there, or not whole, yet
            continue
        client = Client(f"http://127.0.0.1:{ports.management}", f"http://127.0.0.1:{ports.inference}", tokens)
        status = client.describe(model) if client.alive() else None
        if status is not None and status.ready:
            return client
    said = (logs / "console.log").read_text(errors="replace")
    errors = [line for line in said.splitlines() if "Error" in line or "error" in line]
    raise NotReady(f"{model} was not ready within {READY_S:g} s: {' | '.join(errors[-3:]) or said[-300:]}")
