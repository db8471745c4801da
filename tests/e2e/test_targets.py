"""What goes into a container, run as a container runs it, and a server that somebody else runs; one TorchServe each.

There is no Docker here: the image's files lie in a folder, and its Python has the packages of its requirements.txt alone.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from shutil import copy, rmtree
from typing import Any

import psutil
import pytest
from packaging.requirements import Requirement

from marline.archive import Serving, to_yaml
from marline.core import Manifest, ParityError, RequestError, StageError, read_config
from marline.deploy import Client, Server, Tokens, prove, serving
from marline.deploy._image import Layout, write_image
from marline.deploy._plan import Plan, archive_of, plan_of
from marline.deploy._remote import remote_client, to_remote
from marline.deploy._settings import free_ports
from marline.handler import read_golden, write_golden

pytestmark = pytest.mark.e2e

MODEL = "digits_cnn"
ROOT = Path(__file__).parents[2]
CODES = {"ready": 0, "loading": 1, "crash-looping": 2, "dead": 3}
DIES = "import os\n\ndef handle(data, context):\n    if data is not None:\n        os._exit(1)\n"
BROKEN = "raise RuntimeError('the weights are of another model')\n"
OURS = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning"}


@dataclass
class Container:
    """The files of an image and what runs in it."""

    plan: Plan
    layout: Layout
    python: Path
    log: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *command: str | Path) -> subprocess.Popen[bytes]:
        words, env = [str(word) for word in command], OURS | {"HOME": "/proc/none"}  # no place of their own to write to
        env["PATH"] = f"{self.python.parent}:{env['PATH']}"
        with self.log.open("ab") as log:
            process = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.processes.append(process)
        return process

    def probe(self, *role: str, model: str = MODEL) -> tuple[str, int]:
        """What the probe says and its exit code; another model's has a folder of its own."""
        home = self.layout.home
        if model != MODEL:
            home = self.layout.home.parent / model
            home.mkdir(exist_ok=True)
            copy(self.layout.home / "probe.py", home)
            told = json.loads((self.layout.home / "container.json").read_text()) | {"model": model, "workers": 1}
            (home / "container.json").write_text(json.dumps(told))
        command = [str(self.python), str(home / "probe.py"), *role]
        done = subprocess.run(command, env=OURS, capture_output=True, text=True, check=False, timeout=20)
        assert "" == done.stderr
        return done.stdout.strip(), done.returncode

    def get(self, port: int, path: str, token: str | None = None) -> tuple[int, str]:
        """Status and body; the standard library's client also sends headers that a careful one refuses to send."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", path, headers={} if token is None else {"Authorization": token})
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()


def needed(requirements: list[str]) -> dict[str, Distribution]:
    """Distributions that pip would install here, as far as they are."""
    found: dict[str, Distribution] = {}
    left = [Requirement(line) for line in requirements]
    while left:
        one = left.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name in found or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # CUDA's own, on a machine without
            continue
        left += [Requirement(line) for line in found[name].requires or []]
    return found


def python_with(requirements: list[str], folder: Path) -> Path:
    """A Python of its own, with links to the packages that the requirements name and need."""
    venv.create(folder, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    for one in needed(requirements).values():
        tops = {file.parts[0] for file in one.files or [] if file.parts[0] not in {"..", "__pycache__"}}
        for top in tops:
            place = site / top
            if not place.exists():
                place.symlink_to(str(one.locate_file(top)))
    return folder / "bin" / "python"


def archive_named(folder: Path, name: str, handler: str, told: Serving, retry_s: int = 60) -> None:
    """An archive whose handler is this text; after `retry_s` of failed loads TorchServe gives it up."""
    manifest = {"runtime": "python", "model": {"modelName": name, "modelVersion": "1.0", "handler": "handler.py:handle"}}
    manifest["model"] |= {"configFile": "model-config.yaml"}  # type: ignore[operator]
    with zipfile.ZipFile(folder / f"{name}.mar", "w") as mar:
        mar.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        mar.writestr("handler.py", handler)
        mar.writestr("model-config.yaml", to_yaml(told).replace("maxRetryTimeoutInSec: 60", f"maxRetryTimeoutInSec: {retry_s}"))


@pytest.fixture(scope="module")
def container(stage: Callable[[str], Manifest]) -> Iterator[Container]:
    """Everything in place, nothing started."""
    place = Path(tempfile.mkdtemp(prefix="marline-image-"))  # short: workers' sockets are in it
    ports, more = free_ports(), free_ports()
    folders = {name: place / name for name in ("home", "run", "temp")}
    token = place / "token"
    layout = Layout(**folders, token=token, ports=ports, port=more.inference, metrics_port=more.metrics)
    for folder in folders.values():
        folder.mkdir(mode=0o700)
    token.write_text("given\n")
    tuned = stage("tune")
    plan = replace(plan_of(read_config([f"model={MODEL}"]).config, tuned, tuned.run), replicas=1)
    write_image(plan, archive_of(tuned), ROOT / "constraints.txt", layout.home, layout)
    (layout.home / "workflows").mkdir(mode=0o500)
    one = replace(plan.serving, batch_size=1, workers=1)
    archive_named(layout.home / "store", "dies", DIES, one)
    archive_named(layout.home / "store", "broken", BROKEN, one, retry_s=40)
    python = python_with((layout.home / "requirements.txt").read_text().splitlines(), place / "python")
    (python.parent / "caddy").symlink_to(Path(sys.executable).with_name("caddy"))
    made = Container(plan, layout, python, place / "container.log")
    yield made
    for process in made.processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
    rmtree(place)


@pytest.fixture(scope="module")
def seen(container: Container, until: Callable[..., float]) -> list[str]:
    """What the probe says from before the start to the end of it."""
    told = [container.probe()[0]]
    container.start(container.python, container.layout.home / "start.py")

    def ready() -> bool:
        state, code = container.probe()
        assert CODES[state] == code
        told.append(state)
        return state == "ready"

    try:
        waited = until(ready, 90, "the model in the container is ready")
    except AssertionError:
        print(container.log.read_text())
        raise
    print(f"ready after {waited:.1f} s")
    return told


@pytest.fixture
def client(container: Container, seen: list[str]) -> Client:
    """Speaks through the gateway, with the token that users are given; manages past it."""
    keys = json.loads((container.layout.run / "key_file.json").read_text())
    management, gateway = f"http://127.0.0.1:{container.layout.ports.management}", f"http://127.0.0.1:{container.layout.port}"
    return Client(management, gateway, Tokens(management=keys["management"]["key"], inference="given"))


def test_the_probe_tells_dead_loading_and_ready_apart(container: Container, seen: list[str]) -> None:
    assert ["dead", "loading", "ready"] == list(dict.fromkeys(seen))
    assert [("ready", 0)] * 3 == [container.probe(role) for role in ("startup", "readiness", "liveness")]


def test_the_image_serves_the_tuned_settings_and_the_golden_answers(
    container: Container, client: Client, stage: Callable[[str], Manifest]
) -> None:
    told, exported = container.plan.serving, stage("export")

    status = client.describe(MODEL)

    assert status is not None
    assert (told.batch_size, told.max_batch_delay_ms, told.workers) == (
        status.batch_size,
        status.max_batch_delay_ms,
        status.ready,
    )
    (said,) = json.loads(
        container.get(container.layout.ports.management, f"/models/{MODEL}", f"Bearer {client.tokens.management}")[1]
    )
    assert (told.job_queue_size, told.response_timeout_s, told.client_timeout_ms) == (
        *(said["jobQueueStatus"]["remainingCapacity"], said["responseTimeout"], said["clientTimeoutInMills"]),
    )
    assert told.client_timeout_ms > 0
    java = next(each for each in psutil.Process(container.processes[0].pid).children() if each.name() == "java")
    taken = sum(psutil.Process(pid).memory_info().rss for pid in (java.pid, *(pid for pid, _ in status.workers))) / 2**20
    print(f"Java and worker take {taken:.0f} MiB, {container.plan.memory_mib} are asked for")
    assert taken < container.plan.memory_mib
    prove(client, MODEL, read_golden(exported.path("golden.json")), atol=exported.facts["atol"], rtol=exported.facts["rtol"])


def test_the_gateway_lets_nobody_past_without_the_token_of_the_moment(container: Container, seen: list[str]) -> None:
    path, port, token = f"/predictions/{MODEL}", container.layout.port, container.layout.token
    keys = json.loads((container.layout.run / "key_file.json").read_text())
    strangers = [None, "given", "Bearer", "Bearer ", "Bearer {file.x}", "Bearer Given", f"Bearer {keys['inference']['key']}"]

    assert [401] * len(strangers) == [container.get(port, path, stranger)[0] for stranger in strangers]
    assert 401 != container.get(port, path, "Bearer given")[0]
    token.write_text("another")
    assert [401, 404] == [container.get(port, "/nothing", f"Bearer {one}")[0] for one in ("given", "another")]
    token.unlink()
    assert [401] * 3 == [container.get(port, "/nothing", one)[0] for one in ("Bearer", "Bearer ", "Bearer another")]
    token.write_text("given\n")


def test_nothing_but_predictions_is_reached_from_outside(container: Container, client: Client) -> None:
    paths = ["/", "/models", f"/models/{MODEL}", "/ping", "/token?type=inference", "/v2/health/ready", "/workflows", "/metrics"]

    assert [404] * len(paths) == [container.get(container.layout.port, path, "Bearer given")[0] for path in paths]
    assert 404 == container.get(container.layout.metrics_port, f"/predictions/{MODEL}", "Bearer given")[0]
    assert "PredictionTime" in container.get(container.layout.metrics_port, "/metrics")[1]
    listening = set()
    for one in psutil.Process(container.processes[0].pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a probe that ended since it was named listens nowhere
            name = one.name()
            ports = [each.laddr for each in one.net_connections("inet") if each.status == psutil.CONN_LISTEN]
            listening |= {(name == "caddy", port.ip.removeprefix("::ffff:")) for port in ports}
    assert listening == {(True, "::"), (False, "127.0.0.1")}
    with pytest.raises(StageError, match="405"):
        client.unregister(MODEL)


def ping(container: Container) -> tuple[int, str]:
    """What TorchServe itself says of its health."""
    key = json.loads((container.layout.run / "key_file.json").read_text())["inference"]["key"]
    status, body = container.get(container.layout.ports.inference, "/ping", f"Bearer {key}")
    return status, json.loads(body)["status"]


def test_a_worker_that_dies_at_every_request_is_called_crash_looping_though_the_server_says_healthy(
    container: Container, client: Client, until: Callable[..., float]
) -> None:
    until(lambda: container.probe(model="dies")[0] == "ready", 60, "the model that dies later is ready")
    assert 500 == client.predict("dies", b"{}", "application/json").status
    assert (200, "Healthy") == ping(container)

    def looping() -> bool:
        if container.probe(model="dies")[0] == "ready":
            assert client.predict("dies", b"{}", "application/json").status == 500
        return container.probe(model="dies") == ("crash-looping", 2)

    print(f"called so after {until(looping, 60, 'the dying worker is called crash-looping'):.1f} s")

    assert [2, 2] == [container.probe(role, model="dies")[1] for role in ("readiness", "liveness")]
    assert ("ready", 0) == container.probe("liveness")


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(read_config([f"model={MODEL}"]).config.deploy, tmp_path_factory.mktemp("remote")) as server:
        yield server


def versioned(tuned: Manifest, version: str, folder: Path) -> Manifest:
    """The same tuned archive, calling itself another version."""
    source, file = archive_of(tuned), folder / "tuned" / f"{MODEL}-{version}.mar"
    file.parent.mkdir()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.namelist():
            text = old.read(entry)
            if entry == "MAR-INF/MANIFEST.json":
                told = json.loads(text)
                told["model"]["modelVersion"] = version
                text = json.dumps(told).encode()
            new.writestr(entry, text)
    facts = {**tuned.facts, "tuned": {"archive": f"tuned/{file.name}", "sha256": "0"}}
    outputs = {f"tuned/{file.name}": next(iter(tuned.outputs.values()))}
    return tuned.model_copy(update={"facts": facts, "outputs": outputs, "folder": folder})


def test_a_remote_server_gets_a_version_proves_it_and_keeps_the_old_one_where_it_is_bad(
    remote: Server, stage: Callable[[str], Manifest], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = remote.folder / "key_file.json"
    client = remote_client(
        {
            "MARLINE_MANAGEMENT_URL": remote.client.management_url,
            "MARLINE_INFERENCE_URL": remote.client.inference_url,
            "MARLINE_TOKENS_FILE": str(keys),
        }
    )
    exported = stage("export")

    def send(version: str, golden: Manifest = exported, **told: Any) -> str:
        manifest = versioned(stage("tune"), version, tmp_path_factory.mktemp("version"))
        copy(archive_of(manifest), remote.folder / "store")  # as its owner does
        words = [f"deploy.{key}={value}" for key, value in ({"archive_url": f"{MODEL}-{version}.mar"} | told).items()]
        config = read_config([f"model={MODEL}", "deploy.target=remote", *words]).config
        return to_remote(config, golden, manifest, client)

    def served() -> dict[str, int]:
        return {status.version: status.ready for status in client.versions(MODEL)}

    assert "1.1" == send("1.1")
    assert "1.1" == send("1.1")  # again: it is there, and proven
    assert "1.2" == send("1.2")
    assert {"1.2": 1} == served()

    wrong = exported.model_copy(update={"folder": tmp_path_factory.mktemp("golden")})
    first = read_golden(exported.path("golden.json"))[0]
    write_golden(wrong.path("golden.json"), [replace(first, answer={"output": "another"})])
    with pytest.raises(ParityError, match="differs from the golden answer"):
        send("1.3", wrong)
    with pytest.raises(RequestError, match="neither a file in its model store nor admitted by its allowed_urls"):
        send("1.3", archive_url="https://models.example/digits_cnn.mar")
    with pytest.raises(RequestError, match="neither a file in its model store nor admitted"):
        send("1.3", archive_url="no_such.mar")

    live = client.describe(MODEL)
    assert live is not None
    assert ("1.2", {"1.2": 1}) == (live.version, served())


def test_a_model_that_torchserve_has_given_up_is_dead(
    container: Container, seen: list[str], until: Callable[..., float]
) -> None:
    until(lambda: container.probe(model="broken") == ("dead", 3), 90, "TorchServe gives the broken model up")

    assert (500, "Unhealthy") == ping(container)
    assert ("dead", 3) == container.probe("liveness", model="broken")
    assert ("ready", 0) == container.probe("liveness")


def test_it_stops_when_told_and_is_dead_then(container: Container, client: Client) -> None:
    server = container.processes[0]
    family = psutil.Process(server.pid).children(recursive=True)
    began = time.monotonic()

    server.send_signal(signal.SIGTERM)

    assert 0 == server.wait(20)

    print(f"stopped after {time.monotonic() - began:.1f} s")
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [] == alive
    assert [("dead", 3), ("dead", 3)] == [container.probe(role) for role in ("readiness", "liveness")]
    with pytest.raises(ConnectionRefusedError):
        container.get(container.layout.port, f"/predictions/{MODEL}", "Bearer given")
    assert "Traceback" in container.log.read_text()  # of the worker that could not load: the container's log has it
