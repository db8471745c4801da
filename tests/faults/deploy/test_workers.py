"""What happens to a worker while the server lives."""

import json
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from marline.core import read_config
from marline.deploy import Server, ask
from marline.loadtest import Load, Target, measure, percentile
from marline.tune._curve import measure_service
from marline.tune._limits import within_curve

Obey = Callable[..., Any]
Until = Callable[..., float]
BACK_S = 20.0  # a worker imports torch again


@pytest.mark.faults("F01", "SIGKILL of an idle worker", "READY within 10 s, the next request 200, one restart", seconds=20)
def test_f01_a_killed_idle_worker_is_replaced_once(obey: Obey, until: Until) -> None:
    model = obey("idle")
    worker, starts = model.worker, model.starts

    worker.kill()

    until(lambda: model.status.ready and model.worker_pid != worker.pid, 10, "READY with another worker")
    answer = model.ask(n=3)
    assert (200, 3) == (answer.status, answer.body["output"]["n"])
    assert starts + 1 == model.starts


@pytest.mark.faults("F02", "SIGKILL of a worker with a batch of 8", "8 get a 5xx within 2 s, those behind them 200", seconds=30)
def test_f02_a_batch_whose_worker_is_killed_fails_at_once_and_nothing_else_does(
    obey: Obey, until: Until, tmp_path: Path
) -> None:
    model, begun = obey("batch", batch_size=8, delay_ms=300), tmp_path / "begun"
    orders = [{"n": n, "write": str(begun), "sleep_s": 2 * (n == 0)} for n in range(8)]

    with ThreadPoolExecutor(2) as asking:
        batch = asking.submit(model.ask_all, orders)
        until(begun.exists, 5, "the batch has begun")
        behind = asking.submit(model.ask_all, [{"n": n} for n in range(4)])
        until(lambda: model.status.pending == 4, 5, "four more wait")
        killed_s = time.monotonic()
        model.worker.kill()
        answers = batch.result()
        failed_s = time.monotonic() - killed_s

    assert {answer.status for answer in answers} <= {500, 507}, answers
    assert failed_s < 2
    assert [(200, n) for n in range(4)] == [(answer.status, answer.body["output"]["n"]) for answer in behind.result()]
    assert model.serves()


@pytest.mark.faults("F02", "the same, asked by our own client", "asked again where that does no harm, else not", seconds=30)
def test_f02_our_client_asks_again_only_what_may_be_answered_twice(obey: Obey, until: Until, tmp_path: Path) -> None:
    model, begun = obey("asked"), tmp_path / "begun"
    body = json.dumps({"n": 5, "write": str(begun), "sleep_s": 1}).encode()
    client, answers = model.server.client, {}

    for idempotent in (False, True):
        begun.unlink(missing_ok=True)
        with ThreadPoolExecutor(1) as asking:
            asked = asking.submit(ask, client, "asked", body, "application/json", idempotent=idempotent, deadline_s=20)
            until(begun.exists, 10, "it has begun")
            model.worker.kill()
            answers[idempotent] = asked.result()
        until(model.serves, BACK_S, "it serves again")

    assert answers[False].status in {500, 507}
    assert 1 == answers[False].tries
    assert (200, 2) == (answers[True].status, answers[True].tries)


@pytest.mark.faults(
    "F05", "SIGSTOP of a worker, responseTimeout 3", "500, worker replaced, open-loop p99 at least 1 s", seconds=30
)
def test_f05_a_stopped_worker_is_replaced_and_the_load_test_shows_the_stall(obey: Obey, until: Until, tmp_path: Path) -> None:
    model = obey("stopped", responseTimeout=3)
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"n": 1}))
    load = Load(rps=10, seconds=9, warmup_s=0, arrivals="constant", seed=0, timeout_s=10)
    target = Target(url=f"{model.server.client.inference_url}/predictions/stopped", token=model.server.client.tokens.inference)
    worker, before = model.worker, _computed(model.server.batches)

    with ThreadPoolExecutor(1) as loading:
        running = loading.submit(measure, target, [order], load, tmp_path / "load")
        until(lambda: _computed(model.server.batches) > before + 15, 15, "the load has begun")
        worker.suspend()
        try:
            until(lambda: not psutil.pid_exists(worker.pid) or model.worker_pid != worker.pid, 5, "the worker is replaced")
        finally:
            _resume(worker)
        measured = running.result()

    until(model.serves, BACK_S, "it serves again")
    assert 500 in measured.status
    answered = measured.latencies_ms[np.isfinite(measured.latencies_ms)]
    assert percentile(measured.latencies_ms, 99) >= 1000
    assert answered.max() >= 1000  # those who were due meanwhile waited, and are charged for that
    assert not worker.is_running()


@pytest.mark.faults(
    "F08", "handler sleeps longer than responseTimeout", "500 within responseTimeout + 1 s, recovery", seconds=30
)
def test_f08_a_request_that_takes_too_long_fails_in_time(obey: Obey, until: Until) -> None:
    model = obey("slow", responseTimeout=3)

    answer = model.ask(sleep_s=10)

    assert 500 == answer.status
    assert 3 <= answer.seconds < 4
    until(model.serves, BACK_S, "it serves again")


@pytest.mark.faults("F09", "memory ends in the worker", "507, named oom by the load test; the next request 200", seconds=30)
def test_f09_a_request_that_takes_too_much_memory_is_told_so(obey: Obey, tmp_path: Path) -> None:
    model = obey("hungry")
    worker = model.worker
    used = worker.memory_info().vms
    worker.rlimit(resource.RLIMIT_AS, (used + (256 << 20), used + (256 << 20)))

    answer = model.ask(take_mb=1024)

    assert 507 == answer.status, answer
    assert model.serves()
    assert worker.pid == model.worker.pid  # it was not replaced
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"n": 1, "take_mb": 1024}))
    load = Load(rps=5, seconds=1, warmup_s=0, arrivals="constant", seed=0, timeout_s=5)
    target = Target(url=f"{model.server.client.inference_url}/predictions/hungry", token=model.server.client.tokens.inference)
    assert {"HTTP 507 oom": 5} == measure(target, [order], load, tmp_path / "load").errors


@pytest.mark.faults("F09", "a batch that memory does not hold", "the tuner goes on with smaller ones", seconds=30)
def test_f09_the_tuner_goes_on_with_the_batches_that_memory_holds(
    server: Server, make: Callable[..., Path], tmp_path: Path
) -> None:
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"n": 1}))

    curve = measure_service(server, make("large", {"most": 2}), "large", [order], [2, 4], 2).points

    assert [1, 2] == [point.batch for point in curve]
    told = read_config(["model=digits_cnn", "tune.batch_sizes=[2,4]"]).config.tune
    assert (2,) == within_curve(told, curve).batch_sizes
    assert server.client.describe("large") is None


def _computed(batches: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in batches.glob("*.csv"))


def _resume(worker: psutil.Process) -> None:
    if worker.is_running():
        worker.send_signal(signal.SIGCONT)
