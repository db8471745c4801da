"""What our code takes for granted of TorchServe 0.12, each on the real one; where it fails, an adapter of ours is wrong.

Three servers: ours as it is, one with what we switch off or on (tokens, metrics, models of the configuration file, the Open
Inference Protocol), and one whose tokens live for seconds.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
import yaml
from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging import generate_model_archive

from marline.archive import build
from marline.core import DeployConfig, read_config
from marline.deploy import Server, serving
from marline.deploy._folders import new_folder, own
from marline.deploy._guard import end_tree
from marline.deploy._settings import Ports, command, environment, free_ports, java_home_of, log4j, metrics, properties

pytestmark = pytest.mark.e2e

HANDLER = Path(__file__).parent / "handlers" / "contract.py"
UP_S = 30.0
NEVER_S = 4.0  # where no answer ever comes, this long is waited for one
Until = Callable[..., float]


@dataclass(frozen=True)
class Asker:
    """Sends requests to one server's addresses with the tokens it wrote."""

    inference: str
    management: str
    metrics: str
    keys: Path

    def token(self, which: str) -> str:
        return str(json.loads(self.keys.read_text())[which]["key"])

    def headers(self, which: str | None) -> dict[str, str]:
        return {} if which is None or not self.keys.exists() else {"Authorization": f"Bearer {self.token(which)}"}

    def manage(self, verb: str, path: str, *, token: str | None = "management", **how: Any) -> httpx2.Response:
        with httpx2.Client(timeout=60, verify=False) as http:
            return http.request(verb, self.management + path, headers=self.headers(token), **how)

    def ask(self, path: str, order: Any = None, *, deadline_s: float = 20.0, token: str | None = "inference") -> httpx2.Response:
        with httpx2.Client(timeout=deadline_s, verify=False) as http:
            if order is None:
                return http.get(self.inference + path, headers=self.headers(token))
            return http.post(self.inference + path, json=order, headers=self.headers(token))

    def together(self, model: str, orders: Sequence[Any], deadline_s: float = 20.0) -> list[httpx2.Response | None]:
        """One after the other and none waiting for another's answer; None where there was none in time."""

        def one(order: Any) -> httpx2.Response | None:
            try:
                return self.ask(f"/predictions/{model}", order, deadline_s=deadline_s)
            except httpx2.TimeoutException:
                return None

        with ThreadPoolExecutor(len(orders)) as askers:
            asked = []
            for order in orders:
                asked.append(askers.submit(one, order))
                time.sleep(0.05)
            return [each.result() for each in asked]

    def told(self, model: str) -> dict[str, Any]:
        (found,) = self.manage("GET", f"/models/{model}").json()
        return dict(found)

    def workers(self, model: str) -> list[str]:
        return [worker["status"] for worker in self.told(model)["workers"]]


@pytest.fixture(scope="module")
def config() -> DeployConfig:
    return read_config(["model=digits_cnn"]).config.deploy


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """An archive of the contract's handler; keywords are all that its model-config.yaml says, None of them: it has none."""
    folder = tmp_path_factory.mktemp("contract")

    def made(name: str, order: Mapping[str, Any] | None = None, **values: Any) -> Path:
        (folder / name).mkdir()
        (folder / name / "order.json").write_text(json.dumps(order or {}))
        file = folder / name / "model-config.yaml"
        file.write_text(yaml.safe_dump(values))
        told = ModelArchiverConfig(
            model_name=name,
            handler=str(HANDLER),
            version="1.0",
            extra_files=str(folder / name / "order.json"),
            config_file=str(file) if values else None,
            runtime="python3",
            export_path=str(folder),
            archive_format="zip-store",
            force=True,
        )
        generate_model_archive(told)
        return folder / f"{name}.mar"

    return made


@pytest.fixture(scope="module")
def ours(config: DeployConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server as the project starts it."""
    with serving(config, tmp_path_factory.mktemp("logs")) as server:
        yield server


@pytest.fixture(scope="module")
def asker(ours: Server) -> Asker:
    client = ours.client
    return Asker(client.inference_url, client.management_url, client.metrics_url, ours.folder / "key_file.json")


@contextmanager
def bare(config: DeployConfig, logs: Path, archives: Sequence[Path], **changed: Any) -> Iterator[Asker]:
    """A TorchServe with our settings but those that are changed, straight under this process."""
    folder, ports, home = new_folder(), free_ports(), java_home_of(config)
    own(folder, os.getpid())
    for file in archives:
        shutil.copy(file, folder / "store")
    lines = "".join(f"{key}={value}\n" for key, value in changed.items())
    (folder / "config.properties").write_text(properties(folder, ports, config) + lines)  # of two lines the later one counts
    (folder / "log4j2.xml").write_text(log4j(logs))
    (folder / "metrics.yaml").write_text(metrics())
    with (logs / "console.log").open("wb") as console:
        java = subprocess.Popen(
            command(folder, home, sys.executable), cwd=folder, env=environment(folder, logs, home, {}), stdout=console, stderr=console
        )
    try:
        asker = Asker(*(f"http://127.0.0.1:{port}" for port in _http(ports)), folder / "key_file.json")
        _wait_until_up(asker, java)
        yield asker
    finally:
        end_tree(java.pid)
        java.wait(20)
        shutil.rmtree(folder)


def _http(ports: Ports) -> tuple[int, int, int]:
    return ports.inference, ports.management, ports.metrics


def _wait_until_up(asker: Asker, java: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + UP_S
    while time.monotonic() < deadline:
        assert java.poll() is None, "TorchServe did not start"
        try:
            if asker.manage("GET", "/models").status_code in (200, 400):
                return
        except (httpx2.HTTPError, ValueError, KeyError):
            pass  # not yet
        time.sleep(0.1)
    pytest.fail(f"no answer within {UP_S:g} s")
