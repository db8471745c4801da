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

from marline.core import DeployConfig, read_config
from marline.deploy import Server, serving
from marline.deploy._folders import new_folder, own
from marline.deploy._guard import end_tree
from marline.deploy._settings import (
    AOT_CACHE,
    Ports,
    command,
    environment,
    free_ports,
    java_home_of,
    log4j,
    metrics,
    properties,
)

pytestmark = pytest.mark.e2e

HANDLER = Path(__file__).parent / "handlers" / "contract.py"
UP_S = 30.0
NEVER_S = 3.0  # where no answer ever comes, this long is waited for one
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

    def manage(self, verb: str, path: str, *, key: str | None = "management", **how: Any) -> httpx2.Response:
        with httpx2.Client(timeout=60, verify=False) as http:
            return http.request(verb, self.management + path, headers=self.headers(key), **how)

    def ask(self, path: str, order: Any = None, *, deadline_s: float = 20.0, key: str | None = "inference") -> httpx2.Response:
        with httpx2.Client(timeout=deadline_s, verify=False) as http:
            if order is None:
                return http.get(self.inference + path, headers=self.headers(key))
            return http.post(self.inference + path, json=order, headers=self.headers(key))

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
            command(folder, home, sys.executable),
            cwd=folder,
            env=environment(folder, logs, home, {}),
            stdout=console,
            stderr=console,
        )
    try:
        inference, management, metered = (f"http://127.0.0.1:{port}" for port in _http(ports))
        asker = Asker(inference, management, metered, folder / "key_file.json")
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


CPU = {"deviceType": "cpu"}
INTERNAL = "InternalServerException"


@pytest.fixture(scope="module")
def other(config: DeployConfig, archive: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asker]:
    """A server without tokens, with metrics in the log, the Open Inference Protocol, and models named in its configuration."""
    told = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 5, "maxBatchDelay": 0, "responseTimeout": 11}
    named = {name: {"1.0": {"marName": f"{name}.mar", "defaultVersion": True, **told}} for name in ("unsaid", "said")}
    archives = [archive("unsaid"), archive("said", **CPU, batchSize=3), archive("late", {"sleep_s": 1.5}, **CPU)]
    archives += [archive("failing", {"raise": "at load"}, **CPU, maxRetryTimeoutInSec=1)]
    changed = {
        "disable_token_authorization": "true",
        "metrics_mode": "log",
        "ts_open_inference_protocol": "true",
        "load_models": "unsaid.mar,said.mar",
        "models": json.dumps(named),
        "job_queue_size": 7,
    }
    with bare(config, tmp_path_factory.mktemp("other-logs"), archives, **changed) as asker:
        yield asker


def place(server: Server, archive: Path) -> str:
    """Put an archive into the store; its name there."""
    shutil.copy(archive, server.folder / "store")
    return archive.name


def register(asker: Asker, archive: str, **query: Any) -> httpx2.Response:
    return asker.manage("POST", "/models", params={"url": archive, **query})


@pytest.fixture(scope="module")
def batches(ours: Server, asker: Asker, archive: Callable[..., Path]) -> dict[str, int]:
    """The largest batch, with B=8, of each delay that can be asked for, and of a registration by JSON that says none."""
    names = {f"delay{delay}": delay for delay in (0, 1, 2)}
    for name in (*names, "json"):
        place(ours, archive(name))
    body = {"url": "json.mar", "batch_size": 8, "initial_workers": 1, "synchronous": True}

    def load(name: str) -> int:
        if name in names:
            register(asker, f"{name}.mar", batch_size=8, max_batch_delay=names[name], initial_workers=1)
        else:
            asker.manage("POST", "/models", json=body)
        blocked = [{"sleep_s": 1.0}] + [{}] * 20
        replies = asker.together(name, blocked)
        return max(int(reply.text) for reply in replies if reply is not None)

    with ThreadPoolExecutor(2) as loaders:
        return dict(zip([*names, "json"], loaders.map(load, [*names, "json"]), strict=True))


def test_java_begins_with_the_classes_of_an_earlier_start(ours: Server) -> None:
    """`nox -s env` had it learn them; Java says nothing of its own accord where it passes them over."""
    java = int((ours.folder / "java.pid").read_text())

    assert str(AOT_CACHE) in Path(f"/proc/{java}/maps").read_text()


def test_a_delay_of_0_ends_a_batch_at_2_and_one_of_1_ms_fills_it(batches: Mapping[str, int]) -> None:
    """One of 1 ms may end a batch early where a millisecond passes, but not every one of several."""
    assert [2, 8, 8] == [batches[f"delay{delay}"] for delay in (0, 1, 2)]


def test_registration_by_json_without_a_delay_stores_a_negative_one_and_batches_of_2(
    asker: Asker, batches: Mapping[str, int]
) -> None:
    assert (8, -10000) == (asker.told("json")["batchSize"], asker.told("json")["maxBatchDelay"])
    assert 2 == batches["json"]


def test_what_is_0_in_the_configuration_counts_as_unsaid_and_an_archive_s_own_config_comes_first(other: Asker) -> None:
    unsaid, said = other.told("unsaid"), other.told("said")

    assert [(5, 100), (3, 100)] == [(told["batchSize"], told["maxBatchDelay"]) for told in (unsaid, said)]
    assert [11, 120] == [told["responseTimeout"] for told in (unsaid, said)]  # whatever the archive's config leaves out is 120
    assert [7, 7] == [told["jobQueueStatus"]["remainingCapacity"] for told in (unsaid, said)]


def test_a_query_comes_before_an_archive_s_config_for_batches_and_behind_it_for_workers_and_timeouts(
    ours: Server, asker: Asker, archive: Callable[..., Path]
) -> None:
    told = {"batchSize": 3, "maxBatchDelay": 30, "minWorkers": 1, "maxWorkers": 2, "responseTimeout": 33, "jobQueueSize": 13}
    place(ours, archive("own", **CPU, **told))
    query = {"batch_size": 4, "max_batch_delay": 0, "initial_workers": 0, "response_timeout": 44, "synchronous": "false"}

    assert 202 == register(asker, "own.mar", **query).status_code
    found = asker.told("own")
    asker.manage("DELETE", "/models/own")

    assert (4, 0) == (found["batchSize"], found["maxBatchDelay"])
    assert (1, 2, 33) == (found["minWorkers"], found["maxWorkers"], found["responseTimeout"])
    assert 13 == found["jobQueueStatus"]["remainingCapacity"]


def test_only_the_description_of_a_model_tells_loading_failing_and_failed(other: Asker, until: Until) -> None:
    """The Open Inference Protocol is ready whatever there is, and /ping is well until a retry window is over."""

    def said(model: str) -> tuple[list[str], int, Any]:
        return other.workers(model), other.ask("/ping").status_code, other.ask("/v2/health/ready").json()

    for archive in ("late", "failing"):
        assert 202 == register(other, f"{archive}.mar", initial_workers=1, synchronous="false").status_code
    register(other, "late.mar", model_name="nobody", initial_workers=0)
    begun = [said(model) for model in ("late", "failing", "nobody")]
    until(
        lambda: other.workers("late") == ["READY"] and other.ask("/ping").status_code == 500, 25, "one is READY, one given up"
    )
    ended = [said(model) for model in ("late", "failing", "nobody")]
    for model in ("late", "failing", "nobody"):
        other.manage("DELETE", f"/models/{model}")

    constant = {"ready": True}
    assert [(["UNLOADING"], 200, constant), (["UNLOADING"], 200, constant), ([], 200, constant)] == begun
    assert [(["READY"], 500, constant), (["UNLOADING"], 500, constant), ([], 500, constant)] == ended


def test_without_a_token_only_metrics_and_the_descriptions_are_open(asker: Asker) -> None:
    shut = [asker.ask("/ping", key=None), asker.ask("/predictions/x", {}, key=None)]
    shut += [asker.manage(verb, "/models", key=None) for verb in ("GET", "POST")]
    shut += [asker.manage("GET", "/models", key="inference"), asker.ask("/ping", key="management")]
    with httpx2.Client(timeout=10, verify=False) as http:
        opened = [http.options(address) for address in (asker.inference, asker.management)]
        opened += [http.get(f"{asker.metrics}/metrics")]

    assert [(400, "InvalidKeyException")] * 6 == [(reply.status_code, reply.json()["type"]) for reply in shut]
    assert [200] * 3 == [reply.status_code for reply in opened]


def test_no_key_opens_an_address_with_token_in_it(asker: Asker) -> None:
    """So a model of such a name could never be described or removed, and no archive is given one."""
    for path in ("/models/tokenizer", "/models?next_page_token=/token"):
        for key in ("management", "API", "inference"):
            assert (400, "InvalidKeyException") == error(asker.manage("GET", path, key=key))[:2]


def test_workflows_can_be_posted_and_our_settings_let_none_in(ours: Server, asker: Asker) -> None:
    for address in ("file:///etc/hostname", "http://127.0.0.1:1/x.war", "../x.war", "x.war"):
        assert (404, "WorkflowNotFoundException") == error(asker.manage("POST", "/workflows", params={"url": address}))[:2]
    assert [] == list((ours.folder / "workflows").iterdir())


def test_tokens_expire_and_the_api_key_renews_one_at_a_time(config: DeployConfig, tmp_path: Path) -> None:
    with bare(config, tmp_path, [], token_expiration_min=0.03) as asker:
        old = asker.token("management")
        time.sleep(1.9)
        expired = asker.manage("GET", "/models")
        renewed = asker.manage("GET", "/token?type=management", key="API")
        after = asker.manage("GET", "/models")

    assert (400, "InvalidKeyException") == (expired.status_code, expired.json()["type"])
    assert (200, 200) == (renewed.status_code, after.status_code)
    assert old not in str(after.request.headers)


@pytest.fixture(scope="module")
def odd(ours: Server, asker: Asker, archive: Callable[..., Path]) -> str:
    """A model for answers that are odd: batches of 2, a queue of 3."""
    name = place(ours, archive("odd", **CPU, minWorkers=1, maxWorkers=1, jobQueueSize=3))
    register(asker, name, batch_size=2, max_batch_delay=200)
    return "odd"


def error(reply: httpx2.Response | None) -> tuple[int, str, str]:
    assert reply is not None
    told = reply.json()
    return reply.status_code, told["type"], told["message"]


def test_each_503_and_its_body(ours: Server, asker: Asker, odd: str, archive: Callable[..., Path]) -> None:
    register(asker, place(ours, archive("nobody")), initial_workers=0)

    nobody = asker.ask("/predictions/nobody", {})
    full = asker.together(odd, [{"sleep_s": 1}] * 2 + [{}] * 10)
    raised = asker.ask(f"/predictions/{odd}", {"raise": "whatever"})
    no_list = asker.ask(f"/predictions/{odd}", {"answers": "text"})
    too_few = asker.ask(f"/predictions/{odd}", {"answers": []})

    words = " has no worker to serve inference request. Please use scale workers API to add workers."
    refused = [error(reply) for reply in full if reply is None or reply.status_code != 200]
    assert refused
    for status, kind, message in [error(nobody), *refused]:
        assert (503, "ServiceUnavailableException") == (status, kind)
        assert words in message
    told = [error(raised), error(no_list), error(too_few)]
    assert [(503, INTERNAL)] * 3 == [each[:2] for each in told]
    assert ["Prediction failed", "Invalid model predict output", "number of batch response mismatched"] == [
        each[2] for each in told
    ]


def test_memory_that_ends_is_a_507_and_so_may_be_a_killed_worker(asker: Asker, odd: str, until: Until) -> None:
    memory = asker.ask(f"/predictions/{odd}", {"memory": True})
    cuda = asker.ask(f"/predictions/{odd}", {"raise": "CUDA error"})
    (worker,) = asker.told(odd)["workers"]
    with ThreadPoolExecutor(1) as asking:
        killed = asking.submit(asker.ask, f"/predictions/{odd}", {"sleep_s": 5})
        time.sleep(1)
        psutil.Process(worker["pid"]).kill()
        died = killed.result()
    until(lambda: asker.workers(odd) == ["READY"], 20, "the worker is replaced")

    assert [(507, INTERNAL, "Out of resources")] * 2 == [error(memory), error(cuda)]
    assert died.status_code in {500, 507}  # 507 where Java has read the exit code 137 by then, as it mostly has
    assert (INTERNAL, "Worker died.") == error(died)[1:]


def test_a_status_of_one_s_own_is_one_request_s_and_only_ascii_phrases_are_safe(
    ours: Server, asker: Asker, archive: Callable[..., Path], until: Until
) -> None:
    """A phrase that is not ASCII breaks the reply's frame: the whole batch fails and the worker with it."""
    pairs = "pairs"  # of batches that leave when they are full
    register(asker, place(ours, archive(pairs, **CPU, minWorkers=1, maxWorkers=1)), batch_size=2, max_batch_delay=10_000)

    mixed = asker.together(pairs, [{"code": 418, "phrase": "Teapot"}, {}])

    assert [(418, "2"), (200, "2")] == [(reply.status_code, reply.text) for reply in mixed if reply is not None]
    broken = asker.together(pairs, [{"code": 418, "phrase": "Thé"}, {}])
    assert [(500, INTERNAL, "Worker died.")] * 2 == [error(reply) for reply in broken]
    until(lambda: asker.workers(pairs) == ["READY"], 20, "it serves again")


def test_requests_that_are_never_answered(ours: Server, asker: Asker, archive: Callable[..., Path], until: Until) -> None:
    one = {**CPU, "minWorkers": 1, "maxWorkers": 1}
    made = [archive("expiring", **one, clientTimeoutInMills=300), archive("stopping", **one, maxRetryTimeoutInSec=1)]
    made.append(archive("leaving", **one))
    with ThreadPoolExecutor(3) as loaders:
        list(loaders.map(lambda file: register(asker, place(ours, file), batch_size=1, max_batch_delay=1), made))
    (order,) = [file for file in (ours.folder / "temp" / "models").glob("*/order.json") if _is_of(file, "stopping")]
    order.unlink()
    psutil.Process(asker.told("stopping")["workers"][0]["pid"]).kill()

    with ThreadPoolExecutor(3) as asking:
        expired = asking.submit(asker.together, "expiring", [{"sleep_s": 1}, {}], NEVER_S)
        left = asking.submit(asker.together, "leaving", [{"sleep_s": 2}, {}], NEVER_S)
        time.sleep(1)
        asker.manage("DELETE", "/models/leaving")
        until(lambda: asker.ask("/ping").status_code == 500, 15, "the retry window is over")
        stopped = asker.together("stopping", [{}], NEVER_S)

    assert [None] == stopped
    assert [None, None] == expired.result()  # the first was late itself
    begun, queued = left.result()
    assert begun is None or (500, INTERNAL) == error(begun)[:2]
    assert queued is None


def _is_of(file: Path, model: str) -> bool:
    manifest = json.loads((file.parent / "MAR-INF" / "MANIFEST.json").read_text())
    return bool(model == manifest["model"]["modelName"])


def test_metrics_are_empty_in_the_log_mode_and_named_with_their_units_in_the_other(
    asker: Asker, other: Asker, odd: str
) -> None:
    asker.ask(f"/predictions/{odd}", {})
    with httpx2.Client(timeout=10, verify=False) as http:
        logged, shown = http.get(f"{other.metrics}/metrics"), http.get(f"{asker.metrics}/metrics")

    names = {line.split("{")[0] for line in shown.text.splitlines() if not line.startswith("#")}
    assert "" == logged.text.strip()
    assert {"ts_inference_requests_total", "ts_inference_latency_microseconds", "ts_queue_latency_microseconds"} <= names
    assert {"QueueTime", "WorkerThreadTime", "WorkerLoadTime", "PredictionTime"} <= names
