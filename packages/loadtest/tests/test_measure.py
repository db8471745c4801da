import hashlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from marline.core import LoadTestError
from marline.deploy import content_type_of
from marline.load._samples import ENDINGS
from marline.loadtest import Load, Target, arrival_times, measure, percentile, phases, read_measurement, read_phases
from marline.loadtest._measure import _write_plan, content_type

Serve = Callable[..., Target]

LOAD = Load(rps=100, seconds=2, warmup_s=0.5, arrivals="poisson", seed=3, timeout_s=2)


def test_what_is_sent_is_what_was_planned(serve: Serve, payload: Path, tmp_path: Path) -> None:
    waits: list[float] = []
    measurement = measure(serve(delay_s=0.01), [payload], LOAD, tmp_path / "out", html=True, waited=waits.append)

    assert int((arrival_times(LOAD) >= LOAD.warmup_s).sum()) == measurement.scheduled_s.size
    assert arrival_times(LOAD).size == measurement.total
    assert not np.isnan(measurement.sent_s).any()
    assert abs(measurement.mean_in_flight / measurement.little_in_flight - 1) < 0.05
    assert {} == measurement.errors
    assert {len("Bearer a-token image/jpeg 20000")} == set(measurement.size_bytes.tolist())
    assert measurement.scheduled_s.min() >= LOAD.warmup_s
    assert percentile(measurement.latencies_ms, 50) >= 10
    assert np.all(measurement.latencies_ms >= measurement.service_ms)
    assert 0 < measurement.generator_cpu < 1
    assert waits == sorted(waits)
    assert "a-token" not in (tmp_path / "out" / "plan.json").read_text()
    assert {"locust.log", "locust.html", "locust_stats.csv", "samples.json"} <= {
        file.name for file in (tmp_path / "out").iterdir()
    }


def test_users_send_as_soon_as_they_are_answered(serve: Serve, payload: Path, tmp_path: Path) -> None:
    closed = replace(LOAD, users=4, seconds=1)

    measurement = measure(serve(delay_s=0.05), [payload], closed, tmp_path / "out")

    assert {} == measurement.errors
    assert 60 < measurement.answered_rps <= 80
    assert 3.5 < measurement.mean_in_flight <= 4.01
    assert 50 <= percentile(measurement.latencies_ms, 50) < 70
    assert measurement.scheduled_s.min() >= closed.warmup_s
    assert measurement.scheduled_s.max() < closed.end_s


def test_users_of_a_server_that_is_not_there_do_not_spin(payload: Path, tmp_path: Path) -> None:
    closed = replace(LOAD, users=2, seconds=1, warmup_s=0)

    measurement = measure(Target(url="http://127.0.0.1:1/", token=None), [payload], closed, tmp_path / "out")

    assert {"ConnectionRefusedError"} == set(measurement.errors)
    assert 10 < measurement.total <= 42  # every 50 ms


def test_each_phase_has_its_own_rows_and_no_other(serve: Serve, payload: Path, tmp_path: Path) -> None:
    load = replace(LOAD, shape="spike", rps=40, seconds=2.5)

    whole = measure(serve(), [payload], load, tmp_path / "out")
    parts = read_phases(tmp_path / "out" / "samples.json", load)

    assert ["before", "spike", "after"] == [phase.name for phase, _ in parts]
    assert phases(load) == [phase for phase, _ in parts]
    assert [40, 60, 40] == [one.scheduled_s.size for _, one in parts]
    assert whole.scheduled_s.tolist() == np.concatenate([one.scheduled_s for _, one in parts]).tolist()
    assert all(one.scheduled_s.min() >= phase.begin_s and one.scheduled_s.max() < phase.end_s for phase, one in parts)
    assert pytest.approx([40, 120, 40]) == [one.offered_rps for _, one in parts]


def test_what_is_kept_has_a_digest(serve: Serve, payload: Path, tmp_path: Path) -> None:
    measurement = measure(serve(), [payload], replace(LOAD, seconds=0.5), tmp_path / "out")

    sha256 = measurement.save(tmp_path / "samples.npz")

    assert hashlib.sha256((tmp_path / "samples.npz").read_bytes()).hexdigest() == sha256
    assert read_measurement(tmp_path / "samples.npz").answered_rps == measurement.answered_rps


def test_a_payload_is_sent_as_what_the_curl_line_for_it_says() -> None:
    endings = {*{ending for those in ENDINGS.values() for ending in those}, ".json", ".safetensors", ".JPG", ".jpeg", ""}

    for ending in endings:
        assert content_type_of(f"sample{ending}") == content_type(Path(f"sample{ending}"))
    assert {"image/jpeg", "image/png", "text/plain", "application/json"} <= {
        content_type(Path(f"sample{ending}")) for ending in endings
    }


def test_a_pause_of_the_server_is_charged_to_all_who_had_to_wait(serve: Serve, payload: Path, tmp_path: Path) -> None:
    measurement = measure(serve(pause_at=100, pause_s=1.0), [payload], LOAD, tmp_path / "out")

    assert 850 < percentile(measurement.latencies_ms, 99) < 1500  # the upper bound leaves room for a busy machine
    assert percentile(measurement.latencies_ms, 30) < 500


def test_a_request_that_is_not_answered_in_time_is_infinitely_late(serve: Serve, payload: Path, tmp_path: Path) -> None:
    load = Load(rps=50, seconds=1, warmup_s=0, arrivals="constant", seed=0, timeout_s=0.5)

    measurement = measure(serve(pause_at=26, pause_s=60), [payload], load, tmp_path / "out")

    assert {"Timeout": 25} == measurement.errors
    assert 25 == np.isinf(measurement.latencies_ms).sum()
    assert np.isinf(percentile(measurement.latencies_ms, 99))


@pytest.mark.parametrize(
    ("status", "message", "named"),
    [
        (503, "Prediction failed", "TestException"),
        (503, 'Model "tiny" has no worker to serve inference request.', "overload"),
        (507, "Out of resources", "oom"),
        (507, "Worker died.", "TestException"),
    ],
)
def test_error_answers_are_lost_requests_of_their_class(
    status: int, message: str, named: str, serve: Serve, payload: Path, tmp_path: Path
) -> None:
    load = Load(rps=50, seconds=0.5, warmup_s=0, arrivals="constant", seed=0, timeout_s=1)

    measurement = measure(serve(status=status, message=message), [payload], load, tmp_path / "out")

    assert {f"HTTP {status} {named}": 25} == measurement.errors
    assert np.all(np.isinf(measurement.latencies_ms))


def test_a_request_whose_token_was_renewed_is_sent_again_with_the_new_one(serve: Serve, payload: Path, tmp_path: Path) -> None:
    token_file = tmp_path / "token.json"
    token_file.write_text('{"token": "a-token"}')
    load = Load(rps=50, seconds=1, warmup_s=0, arrivals="constant", seed=0, timeout_s=2)

    measurement = measure(serve(token_file=token_file), [payload], load, tmp_path / "out", answers=True)

    samples = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert {} == measurement.errors
    assert samples["resent"] >= 4
    assert {"Bearer a-token", "Bearer token-10", "Bearer token-20"} <= {
        answer.split(" image")[0] for answer in samples["answer"]
    }
    assert np.nanmax(measurement.latencies_ms) >= 50  # the wait for the new one counts


def test_a_token_that_has_a_file_is_not_written_down_again(payload: Path, tmp_path: Path) -> None:
    target = Target(url="http://127.0.0.1:1/", token="a-token", token_file=tmp_path / "token.json")

    assert "a-token" not in _write_plan(tmp_path, target, [payload], 1.0).read_text()
    assert "a-token" in _write_plan(tmp_path, replace(target, token_file=None), [payload], 1.0).read_text()


def test_a_token_that_is_wrong_for_good_is_a_lost_request(serve: Serve, payload: Path, tmp_path: Path) -> None:
    token_file = tmp_path / "token.json"
    token_file.write_text('{"token": "a-token"}')
    load = Load(rps=20, seconds=1.5, warmup_s=0, arrivals="constant", seed=0, timeout_s=3)
    target = serve(token_file=token_file)

    measurement = measure(replace(target, token="wrong", token_file=None), [payload], load, tmp_path / "out")

    assert {"HTTP 400 InvalidKeyException": 30} == measurement.errors


def test_a_server_that_is_not_there_loses_every_request(payload: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    load = Load(rps=50, seconds=0.5, warmup_s=0, arrivals="constant", seed=0, timeout_s=1)

    measurement = measure(Target(url=f"http://127.0.0.1:{port}/", token=None), [payload], load, tmp_path / "out")

    assert {"ConnectionRefusedError": 25} == measurement.errors


def test_a_run_without_samples_names_the_log(tmp_path: Path) -> None:
    target = Target(url="http://127.0.0.1:1/", token=None)

    with pytest.raises(LoadTestError, match=r"left no samples of .*read .*locust\.log, which says .*missing\.jpg"):
        measure(target, [tmp_path / "missing.jpg"], LOAD, tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_locust_dies_with_the_process_that_started_it(number: int, serve: Serve, payload: Path, tmp_path: Path) -> None:
    target = serve()
    code = (
        "from pathlib import Path; from marline.loadtest import Load, Target, measure; "
        f"measure(Target(url={target.url!r}, token=None), [Path({str(payload)!r})],"
        "Load(rps=20, seconds=60, warmup_s=0, arrivals='constant', seed=0, timeout_s=1),"
        f"Path({str(tmp_path / 'out')!r}))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        locust = _child_that_sends(parent, tmp_path / "out" / "locust.log")
        parent.send_signal(number)
        parent.wait(10)

        assert [] == psutil.wait_procs([locust], timeout=5)[1]
    finally:
        parent.kill()
        parent.wait()
    assert number == signal.SIGKILL or json.loads((tmp_path / "out" / "plan.json").read_text())["token"] is None


def _child_that_sends(parent: subprocess.Popen[bytes], log: Path) -> psutil.Process:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if log.is_file() and "All users spawned" in log.read_text():
            return psutil.Process(parent.pid).children()[0]
        time.sleep(0.05)
    raise AssertionError("locust did not start")
