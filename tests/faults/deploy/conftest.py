"""One real TorchServe for every fault that leaves it alive, and tiny archives whose workers do as they are told."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from marline.archive import build
from marline.core import DeployConfig, ServerError, read_config
from marline.deploy import Reply, Server, Status, serving

HANDLER = Path(__file__).parent / "handlers" / "obedient.py"
CONFIG = {"deviceType": "cpu", "minWorkers": 1, "maxWorkers": 1}


@dataclass(frozen=True)
class Answered:
    """What became of one request, and when (seconds since it was sent)."""

    status: int  # 0: no answer within the deadline
    body: Any
    seconds: float


@dataclass(frozen=True)
class Obedient:
    """A model of one worker on a server."""

    server: Server
    name: str

    def ask(self, deadline_s: float = 20.0, **order: Any) -> Answered:
        """Send one order; n is what is to be answered."""
        began = time.monotonic()
        body = json.dumps({"n": 0, **order}).encode()
        try:
            reply = self.server.client.predict(self.name, body, "application/json", deadline_s)
        except ServerError as error:
            reply = Reply(0, json.dumps(str(error)).encode())
        return Answered(reply.status, json.loads(reply.body), time.monotonic() - began)

    def ask_all(self, orders: Sequence[Mapping[str, Any]], deadline_s: float = 20.0) -> list[Answered]:
        """Send all at once; the answers in the same order."""
        with ThreadPoolExecutor(len(orders)) as senders:
            return list(senders.map(lambda order: self.ask(deadline_s, **order), orders))

    @property
    def status(self) -> Status:
        status = self.server.client.describe(self.name)
        assert status is not None, f"{self.name} is not registered"
        return status

    @property
    def worker(self) -> psutil.Process:
        return psutil.Process(self.worker_pid)

    @property
    def worker_pid(self) -> int:
        """As TorchServe names it, which for a moment is one that has ended."""
        ((pid, _),) = self.status.workers
        return pid

    @property
    def starts(self) -> int:
        """How often its worker was started, by the worker's own log."""
        log = (self.server.logs / "worker.log").read_text(errors="replace")
        return len(re.findall(rf"^W-\d+-{self.name}_\S+ - .*Torch worker started", log, re.MULTILINE))

    def serves(self) -> bool:
        """Whether it is READY and answers rightly."""
        answer = self.ask(n=7) if self.status.ready else None
        return answer is not None and (200, 7) == (answer.status, answer.body["output"]["n"])


@pytest.fixture(scope="session")
def config() -> DeployConfig:
    return read_config(["model=digits_cnn"]).config.deploy


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Build an archive whose worker obeys; keywords are values of its model-config.yaml."""

    def made(name: str, order: Mapping[str, Any] | None = None, **values: Any) -> Path:
        folder = tmp_path_factory.mktemp(name)
        (folder / "order.json").write_text(json.dumps(order or {}))
        (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, **values}))
        extra = [folder / "order.json"]
        return build(name, model_file=HANDLER, extra_files=extra, config_file=folder / "config.yaml", export_path=folder).file

    return made


@pytest.fixture(scope="session")
def server(config: DeployConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of all faults that do not end it."""
    with serving(config, tmp_path_factory.mktemp("logs")) as running:
        yield running


@pytest.fixture
def obey(server: Server, make: Callable[..., Path]) -> Iterator[Callable[..., Obedient]]:
    """Load an obedient model under a name of its own; it is gone after the test, and the server is not."""
    loaded: list[str] = []

    def load(name: str, *, batch_size: int = 1, delay_ms: int = 10, **values: Any) -> Obedient:
        loaded.append(name)
        server.load(make(name, **values), name, batch_size=batch_size, max_batch_delay_ms=delay_ms, workers=1)
        return Obedient(server, name)

    yield load
    for name in loaded:
        server.unload(name)
    assert server.client.alive()
