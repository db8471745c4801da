"""A deploy section, and a TorchServe's answers without a TorchServe."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from marline.archive import Serving, to_yaml, version_of
from marline.core import DeployConfig, Manifest, Section, read_config, read_manifest, seal
from marline.deploy import Client, Server, Tokens
from marline.deploy._plan import Plan

SERVING = Serving(
    batch_size=8,
    max_batch_delay_ms=5,
    workers=1,
    response_timeout_s=60,
    startup_timeout_s=120,
    job_queue_size=42,
    device="cpu",
)


@pytest.fixture
def config() -> DeployConfig:
    return read_config(["model=digits_cnn", "deploy.ready_s=5"]).config.deploy


@dataclass
class Fake:
    """What TorchServe does with models and versions, by its own rules; `log` is what it was told, in order."""

    store: Path
    models: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)
    named: dict[tuple[str, str], int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    answer: Callable[[str, bytes], httpx2.Response] = lambda version, _: httpx2.Response(200, json={"output": version})
    state: Callable[[str], str] = lambda _: "READY"
    workers: int = 1  # what every archive asks for
    asked: int = 0  # descriptions by handlers
    turns: list[int] = field(default_factory=list)  # which worker takes which; by turns where nothing is said
    hands: dict[str, Any] = field(default_factory=lambda: {"named": True})

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        parts, query = request.url.path.strip("/").split("/"), dict(request.url.params)
        if parts[0] == "metrics":
            return httpx2.Response(200, text="".join(map(self._counter, self.named.items())))
        if parts[0] == "predictions":
            return self._predict(*parts[1:], body=request.read())
        if request.method != "GET" or "customized" in query:
            self.log.append(f"{request.method} {'/'.join(parts[1:])}{' behind all' * ('customized' in query)}")
        if request.method == "POST":
            return self._register(query)
        versions = self.models.get(parts[1], {})
        version = parts[2] if len(parts) > 2 and parts[2] != "all" else self.defaults.get(parts[1], "")
        if not versions or (version not in versions and "all" not in parts):
            return httpx2.Response(404, json={"code": 404})
        if request.method == "DELETE":
            return self._delete(parts[1], version)
        if request.method == "PUT" and parts[-1] == "set-default":
            self.defaults[parts[1]] = version
        elif request.method == "PUT":
            self._scale(versions[version], int(query["min_worker"]))
        chosen = versions.values() if "all" in parts else [versions[version]]
        return httpx2.Response(200, json=[self._described(one, "customized" in query) for one in chosen])

    def _register(self, query: dict[str, str]) -> httpx2.Response:
        version, model = version_of(self.store / query["url"]), query["model_name"]
        versions = self.models.setdefault(model, {})
        if version in versions:
            return httpx2.Response(409, text=f"Model version {version} is already registered for model {model}")
        self.defaults.setdefault(model, version)
        versions[version] = {
            "modelName": model,
            "modelVersion": version,
            "modelUrl": query["url"],
            "batchSize": int(query["batch_size"]),
            "maxBatchDelay": int(query["max_batch_delay"]),
            "responseTimeout": 0,
            "workers": [],
        }
        self._scale(versions[version], self.workers)
        return httpx2.Response(202, json={"status": "accepted"})

    def _scale(self, version: dict[str, Any], count: int) -> None:
        state = self.state(version["modelVersion"])
        first = 9000 + 100 * len(self.log)
        version["workers"] = [{"id": str(first + place), "pid": -1 - place, "status": state} for place in range(count)]

    def _delete(self, model: str, version: str) -> httpx2.Response:
        if version == self.defaults[model] and len(self.models[model]) > 1:
            return httpx2.Response(403, text="Cannot remove default version")
        del self.models[model][version]
        if not self.models[model]:
            del self.models[model], self.defaults[model]
        return httpx2.Response(200, json={"status": "unregistered"})

    def _described(self, version: dict[str, Any], by_handler: bool) -> dict[str, Any]:
        if not by_handler:
            return version
        place = self.turns[self.asked] if self.asked < len(self.turns) else self.asked
        self.asked += 1
        worker = version["workers"][place % len(version["workers"])]["pid"]
        return {**version, "customizedMetadata": {"worker": worker} if self.hands["named"] else {}}

    def _predict(self, model: str, version: str | None = None, *, body: bytes) -> httpx2.Response:
        if version is not None:
            self.named[model, version] = self.named.get((model, version), 0) + 1
        live = version or self.defaults.get(model, "")
        return self.answer(live, body) if live in self.models.get(model, {}) else httpx2.Response(404, text="not found")

    def _counter(self, counted: tuple[tuple[str, str], int]) -> str:
        (model, version), count = counted
        return f'ts_inference_requests_total{{model_name="{model}",model_version="{version}",hostname="vm",}} {count}.0\n'


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    (tmp_path / "server" / "store").mkdir(parents=True)
    return Fake(tmp_path / "server" / "store")


@pytest.fixture
def server(fake: Fake, tmp_path: Path) -> Iterator[Server]:
    """A server whose HTTP is the fake's and whose processes sleep."""
    (tmp_path / "logs").mkdir()
    folder, url = tmp_path / "server", "http://127.0.0.1:1"
    client = Client(url, url, Tokens("manage", "infer"), httpx2.MockTransport(fake), metrics_url=url)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as guard:
        (folder / "java.pid").write_text(str(os.getpid()))
        yield Server(client, folder, tmp_path / "logs", 1.0, guard)
        guard.kill()


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[str, str], Path]:
    """Make an archive of a version; `content` makes it another one."""

    def make(version: str, content: str = "") -> Path:
        file = tmp_path / f"{version}-{content}" / "digits_cnn.mar"
        file.parent.mkdir()
        with zipfile.ZipFile(file, "w") as mar:
            mar.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelVersion": version, "modelName": "digits_cnn"}}))
            mar.writestr("content", content)
        return file

    return make


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with a handler that imports what the server has, what is beside it, and what nobody has."""
    file = tmp_path_factory.mktemp("archive") / "digits_cnn.mar"
    manifest = {"createdOn": "x", "runtime": "python", "model": {"modelName": "digits_cnn", "configFile": "model-config.yaml"}}
    manifest["model"] |= {"handler": "handler.py", "modelVersion": "1.3"}  # type: ignore[operator]
    handler = "import json, torch\nfrom PIL import Image\nimport beside, no_such_package\ndef f():\n    import captum\n"
    texts = {
        "MAR-INF/MANIFEST.json": json.dumps(manifest),
        "model-config.yaml": to_yaml(SERVING),
        "handler.py": handler,
        "beside.py": "from sklearn import svm\n",
        "requirements.txt": "scikit-learn==1.0.1  # the user's own\n\n",
    }
    with zipfile.ZipFile(file, "w") as mar:
        for name, text in texts.items():
            mar.writestr(name, text)
    return file


@pytest.fixture(scope="session")
def plan() -> Plan:
    return Plan(
        model="digits_cnn",
        name="digits-cnn",
        run="20260102-030405-6789",
        image="registry:5000/digits:20260102-030405-6789",
        python="3.11",
        serving=SERVING,
        slo_ms=50.0,
        cores=2,
        memory_mib=1700,
        gpus=0,
        replicas=3,
        canary_replicas=1,
        drain_s=6,
        max_request_mb=16,
    )


@pytest.fixture
def tuned(small_archive: Path, tmp_path: Path) -> Callable[..., Manifest]:
    """Seal the stages of a run as far as delivery reads them; returns its tune stage."""

    def make(*, weights: str = "file", profile: str = "standard", kind: str = "cpu", **chosen: Any) -> Manifest:
        run = tmp_path / "artifacts" / "digits_cnn" / "20260102-030405-6789"
        facts: dict[str, dict[str, Any]] = {
            "load": {"weights": {"kind": weights, "detail": "seed 0"}},
            "export": {"atol": 1e-4, "rtol": 1e-3},
            "tune": {
                "profile": profile,
                "accelerator": {"kind": kind, "name": "rn50"},
                "slo": {"ms": 50.0},
                "chosen": {"batch_size": 8, "max_batch_delay_ms": 5, "workers": 1, "rps": 1000.0, **chosen},
                "machine": {"cores": 2},
                "tuned": {"archive": "tuned/digits_cnn.mar", "sha256": "0"},
            },
        }
        for stage, told in facts.items():
            (run / stage).mkdir(parents=True)
            if stage == "tune":
                (run / stage / "tuned").mkdir()
                shutil.copy(small_archive, run / stage / "tuned" / "digits_cnn.mar")
            seal(run / stage, model="digits_cnn", config=Section(), inputs=[], facts=told, started=time.monotonic())
        return read_manifest(run / "tune")

    return make
