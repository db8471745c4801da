"""What can be seen of a server in service: metrics, logs, status, curl lines. One server, one tiny archive."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx2
import psutil
import pytest
import yaml
from PIL import Image

from marline.archive import build
from marline.core import RequestError, WorkerError, read_config
from marline.deploy import Server, serving
from marline.deploy._curl import curl_lines
from marline.deploy._settings import LOG_BACKUPS, LOG_MB

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent / "handlers"
ROOT = HERE.parents[2]
MODEL, SIZE, DELAY_MS = "observed", 4, 300
WRITE_STATE = "import json, sys; from marline.core import write_state; print(write_state('observed', json.load(sys.stdin)))"
LOGS = ("server.log", "worker.log", "events.log")


@dataclass(frozen=True)
class Observed:
    """The server, its logs' folder and the archive it serves."""

    server: Server
    logs: Path
    archive: Path

    def ask(self, body: bytes, kind: str = "application/json") -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.server.client.tokens.inference}", "Content-Type": kind}
        with httpx2.Client(timeout=60, verify=False) as http:
            return http.post(f"{self.server.client.inference_url}/predictions/{MODEL}", content=body, headers=headers)

    def metrics(self) -> dict[str, float]:
        """Every sample of the metrics address, which needs no token, by name and labels."""
        with httpx2.Client(timeout=10, verify=False) as http:
            text = http.get(f"{self.server.client.metrics_url}/metrics").raise_for_status().text
        told = [line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, _, value in told}

    def total(self, name: str, having: str = "") -> float:
        return sum(value for label, value in self.metrics().items() if label.startswith(f"{name}{{") and having in label)

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.logs / "events.log").read_text().splitlines()]


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    """A server that is asked at another address than everything else of it."""
    folder = tmp_path_factory.mktemp("observed")
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"deviceType": "cpu", "batchSize": SIZE, "maxBatchDelay": DELAY_MS}))
    archive = build(MODEL, handler=HERE / "observed.py", config_file=config, export_path=folder).file
    with serving(read_config(["model=resnet50", "deploy.bind=127.0.0.2"]).config.deploy, folder / "logs") as server:
        server.load(archive, MODEL, batch_size=SIZE, max_batch_delay_ms=DELAY_MS, workers=1)
        yield Observed(server, folder / "logs", archive)


def test_predictions_are_asked_at_the_address_that_was_named_and_the_rest_on_loopback(observed: Observed) -> None:
    client = observed.server.client

    assert client.inference_url.startswith("http://127.0.0.2:")
    assert client.management_url.startswith("http://127.0.0.1:")
    assert {"output": [2.0, 4.0]} == json.loads(observed.ask(b"[1,2]").text)
    with pytest.raises(httpx2.ConnectError), httpx2.Client(timeout=5, verify=False) as http:
        http.get(client.inference_url.replace("127.0.0.2", "127.0.0.1") + "/ping")


def test_a_batch_is_counted_by_its_size_with_the_time_of_each_stage(observed: Observed, until: Callable[..., float]) -> None:
    before, began = observed.metrics(), time.monotonic()
    together = Barrier(SIZE)

    def ask(_: int) -> Any:
        together.wait(10)
        return observed.ask(b"[1,2]")

    with ThreadPoolExecutor(SIZE) as askers:
        replies = list(askers.map(ask, range(SIZE)))
    spent_ms = (time.monotonic() - began) * 1e3
    size = f'BatchSize="{SIZE}"'
    until(lambda: observed.total("MarlineBatches", size) >= 1, 10, "the frontend has counted the batch")

    def more(name: str, having: str) -> float:
        earlier = sum(value for key, value in before.items() if key.startswith(name) and having in key)
        return observed.total(name, having) - earlier

    assert [200] * SIZE == [reply.status_code for reply in replies]
    assert 1 == more("MarlineBatches", size)
    assert SIZE == more("ts_inference_requests_total", f'model_name="{MODEL}"')
    assert 0 < sum(more(f"Marline{stage}", size) for stage in ("Preprocess", "Inference", "Postprocess")) < spent_ms
    queued_us, all_us = (more(f"ts_{kind}_latency_microseconds", MODEL) for kind in ("queue", "inference"))
    assert 0 < queued_us < all_us < SIZE * spent_ms * 1e3


def test_an_error_is_logged_with_the_id_that_its_answer_has(observed: Observed, until: Callable[..., float]) -> None:
    reply = observed.ask(b"fail", "text/plain")
    told = reply.headers["x-request-id"]

    def logged() -> list[str]:
        return [event["message"] for event in observed.events() if event["request_id"] == told]

    def printed() -> bool:
        worker = (observed.logs / "worker.log").read_text()
        return f"W-9000-{MODEL}_1.0-stdout - RuntimeError: told to fail" in worker.partition(told)[2]

    until(lambda: logged() and printed(), 10, "the error is in both logs")
    assert 500 == reply.status_code
    assert [f"request {told} failed: RuntimeError"] == logged()
    assert {"at", "level", "logger", "thread", "request_id", "message", "exception"} == set(observed.events()[0])


def test_requests_that_are_answered_leave_nothing_in_the_logs(observed: Observed) -> None:
    time.sleep(0.5)  # what was logged before is written
    before = {name: (observed.logs / name).stat().st_size for name in LOGS}
    replies = [observed.ask(b"[1]") for _ in range(3)] + [observed.ask(b"", "text/plain")]
    time.sleep(0.5)

    assert [200, 200, 200, 400] == [reply.status_code for reply in replies]
    assert before == {name: (observed.logs / name).stat().st_size for name in LOGS}


def test_every_metric_that_a_panel_of_the_dashboard_names_is_told_by_the_server(observed: Observed) -> None:
    board = json.loads((ROOT / "packages" / "deploy" / "grafana" / "dashboard.json").read_text())
    told: dict[str, set[str]] = {}
    for sample in observed.metrics():
        name, _, labels = sample.partition("{")
        told.setdefault(name, set()).update(re.findall(r"(\w+)=", labels))

    for panel in board["panels"]:
        for target in panel["targets"]:
            named = re.findall(r"(\w+)\{([^}]*)\}", target["expr"])
            assert named, panel["title"]
            for name, selector in named:
                assert set(re.findall(r"(\w+)[=!~]+", selector)) <= told.get(name, set()), (panel["title"], name)
    variable = board["templating"]["list"][1]["query"]
    assert "label_values(ts_inference_requests_total, model_name)" == variable


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_every_curl_line_works_as_it_is_pasted(observed: Observed, tmp_path: Path) -> None:
    folder = tmp_path / "a folder; with, signs"
    folder.mkdir()
    headers = folder / "state.curl"
    headers.write_text(f'header = "Authorization: Bearer {observed.server.client.tokens.inference}"\n')
    Image.new("RGB", (3, 2)).save(folder / "image.png")
    (folder / "numbers.json").write_text("[1, 2.5, 3]")
    (folder / "text.txt").write_text("four")
    samples = sorted(file for file in folder.iterdir() if file != headers)
    url = f"{observed.server.client.inference_url}/predictions/{MODEL}"
    expected = {"image.png": [6.0, 4.0], "numbers": [2.0, 5.0, 6.0], "text.txt": [8.0]}

    lines = curl_lines(url, headers, samples, folder, shared=True)

    assert 3 + 5 + 3 == len(lines)
    for line in lines:
        done = subprocess.run(["/bin/bash", "-c", line], capture_output=True, text=True, check=True, timeout=30)
        answer = next(value for name, value in expected.items() if name in line)
        assert {"output": answer} == json.loads(done.stdout), line


def test_the_status_of_a_running_server_is_a_table(observed: Observed, tmp_path: Path) -> None:
    client = observed.server.client
    state = {
        "model": MODEL,
        "predictions_url": f"{client.inference_url}/predictions/{MODEL}",
        "pid": os.getpid(),
        "run": "20260101-000000-0001",
        "management_url": client.management_url,
        "key_file": str(observed.server.folder / "key_file.json"),
    }
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}

    def run(*words: str, told: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        return subprocess.run(command, env=environment, input=told, capture_output=True, text=True, check=False, timeout=60)

    file = Path(run("-c", WRITE_STATE, told=json.dumps(state)).stdout.strip())
    shown = run("-m", "marline.deploy.status", "status=true", f"model={MODEL}")
    file.write_text(json.dumps({**state, "management_url": "http://127.0.0.1:1"}))
    gone = run("-m", "marline.deploy.status", "status=true")

    print(shown.stdout)
    assert 0 == shown.returncode, shown.stderr
    row = next(line for line in shown.stdout.splitlines() if line.startswith(MODEL))
    assert all(part in row for part in ("1.0", "1 of 1 ready", "0 of 1000", f"{SIZE}, {DELAY_MS} ms", client.inference_url))
    assert 50 < float(re.findall(r"ms\s+([\d,]+) MB", row)[0].replace(",", "")) < 5000
    assert client.tokens.management not in shown.stdout
    assert 1 == gone.returncode
    assert "no answer" in gone.stdout


def test_a_port_that_a_server_holds_is_named_with_its_holder_before_another_is_started(
    observed: Observed, place: Any, tmp_path: Path
) -> None:
    port = int(observed.server.client.management_url.rpartition(":")[2])
    java = next(child for child in psutil.Process(observed.server.guard.pid).children() if "java" in child.name())
    told = read_config(["model=resnet50"]).config.deploy.model_copy(update={"ports": (port,)})
    before, began = len(list(observed.server.folder.parent.iterdir())), time.monotonic()

    with (
        pytest.raises(RequestError, match=rf"port {port} is taken by java \(pid {java.pid}\)"),
        serving(told, tmp_path / "logs"),
    ):
        pass

    assert time.monotonic() - began < 2
    assert before == len(list(observed.server.folder.parent.iterdir()))


def test_a_worker_that_talks_without_end_fills_no_disk_and_hides_no_failure(
    observed: Observed, until: Callable[..., float], tmp_path: Path
) -> None:
    for _ in range(LOG_BACKUPS + 2):
        assert 200 == observed.ask(b"talk", "text/plain").status_code
    until((observed.logs / f"worker.{LOG_BACKUPS}.log").exists, 30, "the logs were rotated")
    held = {file.name: file.stat().st_size for file in observed.logs.glob("*.log")}
    source = tmp_path / "broken.py"
    source.write_text((HERE / "observed.py").read_text() + "\n\nraise RuntimeError('cannot be imported')\n")
    broken = build("broken", handler=source, export_path=tmp_path).file

    with pytest.raises(WorkerError, match="RuntimeError: cannot be imported"):
        observed.server.load(broken, "broken", batch_size=1, max_batch_delay_ms=100, workers=1)

    assert not list(observed.logs.glob(f"*.{LOG_BACKUPS + 1}.log"))
    assert all(size <= (LOG_MB + 1) * 2**20 for size in held.values()), held


def test_a_server_without_tokens_is_one_that_was_asked_for_by_name(tmp_path: Path) -> None:
    told = read_config(["model=resnet50", "deploy.tokens=false", "deploy.allow_unsafe=[no_tokens]"]).config.deploy

    with serving(told, tmp_path / "logs") as server, httpx2.Client(timeout=10, verify=False) as http:
        assert 200 == http.get(f"{server.client.management_url}/models").status_code
        assert not (server.folder / "key_file.json").exists()
