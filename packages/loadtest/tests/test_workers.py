"""Several sending processes: locust's own master and workers, the small server, everything on this machine."""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from marline.core import LoadTestError
from marline.loadtest import Load, Target, arrival_times, invalid_reason, measure

Serve = Callable[..., Target]

LOAD = Load(rps=60, seconds=2, warmup_s=0.5, arrivals="poisson", seed=3, timeout_s=2)


def test_two_processes_send_one_schedule_and_their_rows_are_merged(serve: Serve, tmp_path: Path) -> None:
    payloads = [tmp_path / f"{number}.txt" for number in range(3)]
    for number, payload in enumerate(payloads):
        payload.write_bytes(b"x" * (10**number))

    measured = measure(serve(delay_s=0.01), payloads, LOAD, tmp_path / "out", answers=True, processes=2)

    told = json.loads((tmp_path / "out" / "samples.json").read_text())
    planned = arrival_times(LOAD)
    assert (2, 0, planned.size) == (measured.senders, measured.missing, measured.total)
    assert np.allclose(planned, told["scheduled_s"], atol=1e-8)
    assert [index % 3 for index in range(planned.size)] == told["payload"]
    assert [str(10 ** (index % 3)) for index in range(planned.size)] == [answer.split()[-1] for answer in told["answer"]]
    assert {} == measured.errors
    assert not np.isnan(measured.sent_s).any()
    assert 2 == len(told["samples"])
    assert abs(measured.mean_in_flight / measured.little_in_flight - 1) < 0.05  # added up, not averaged
    assert percentile_of_starts(told) < 0.5  # of one instant
    assert "a-token" not in "".join(file.read_text() for file in (tmp_path / "out").glob("*.log"))


def percentile_of_starts(told: dict[str, list[float]]) -> float:
    """How late the median request of the later process was sent, s."""
    late = np.array(told["sent_s"]) - np.array(told["scheduled_s"])
    return max(float(np.median(late[0::2])), float(np.median(late[1::2])))


def test_users_are_spread_over_two_processes(serve: Serve, payload: Path, tmp_path: Path) -> None:
    closed = replace(LOAD, users=3, seconds=1)

    measured = measure(serve(delay_s=0.1), [payload], closed, tmp_path / "out", processes=2)

    assert {} == measured.errors
    assert 2.5 < measured.mean_in_flight <= 3.01
    assert 20 < measured.answered_rps <= 30


def test_a_worker_that_is_missing_at_the_end_makes_the_run_invalid(serve: Serve, payload: Path, tmp_path: Path) -> None:
    load = replace(LOAD, rps=20, seconds=6)

    killer = threading.Thread(target=kill_a_worker_that_sends, args=(tmp_path / "out",))
    killer.start()
    measured = measure(serve(), [payload], load, tmp_path / "out", processes=2)
    killer.join()

    assert (2, 1) == (measured.senders, measured.missing)
    assert arrival_times(load).size == measured.total
    assert abs(np.isnan(measured.sent_s).mean() - 0.5) < 0.1  # which were its, in the order of all arrivals
    assert "1 of 2 workers were missing at the end (limit 0)" == invalid_reason(measured, load, 100)


def kill_a_worker_that_sends(out: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        log = out / "locust.log"
        if log.is_file() and "All users spawned" in log.read_text():
            time.sleep(3)
            found = psutil.process_iter(["ppid", "cmdline"])  # of which some end, or wait for who started them, meanwhile
            ours = [one for one in found if one.info["ppid"] == os.getpid() and "--worker" in (one.info["cmdline"] or ())]
            ours[0].kill()
            return
        time.sleep(0.1)


def test_workers_started_elsewhere_are_waited_for_and_told_everything(serve: Serve, payload: Path, tmp_path: Path) -> None:
    """As on another machine: a command in another folder, without the plan's file or any variable of ours."""
    with ExitStack() as stack:

        def start(said: str) -> None:
            words = shlex.split(said.partition(": ")[2])
            words[words.index("--master-host") + 1] = "127.0.0.1"
            command = [sys.executable, "-m", *words]
            for number in range(2):
                home = tmp_path / f"elsewhere-{number}"
                home.mkdir()
                worker = stack.enter_context(
                    subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                )
                stack.callback(worker.kill)

        measured = measure(serve(), [payload], LOAD, tmp_path / "out", expect_workers=2, port=0, said=start)

    assert (2, 0) == (measured.senders, measured.missing)
    assert {} == measured.errors
    assert not np.isnan(measured.sent_s).any()


def test_workers_who_do_not_join_are_not_waited_for_for_ever(payload: Path, tmp_path: Path) -> None:
    said: list[str] = []

    target = Target(url="http://127.0.0.1:1/", token=None)

    with pytest.raises(LoadTestError, match="Gave up waiting for workers to connect"):
        measure(target, [payload], LOAD, tmp_path / "out", expect_workers=1, join_s=1.0, port=0, said=said.append)
    assert "waiting up to 1 s for 1 worker(s)" in said[0]
