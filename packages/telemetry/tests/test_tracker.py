import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.telemetry import FakeCollector

Program = Callable[..., Any]

MODEL = """
import marline_tracker as t
class Model:
    tracker = t.Tracker(t.Settings({url!r}, "tiny", {detail!r}))
    @t.tracked
    def forward(self, value: float, scale: float = 1.0) -> float:
        return 1.0 / value * scale
    @t.tracked
    def generate(self) -> list[float]:
        return [self.forward(value) for value in (1.0, 2.0, 4.0)]
model = Model()
"""


def model(url: str | None, detail: str = "minimal") -> str:
    return MODEL.format(url=url, detail=detail)


def test_a_call_is_one_report_in_the_first_schema(collector: FakeCollector, program: Program) -> None:
    done = program(model(collector.url) + "print(model.forward(2.0, scale=3.0))")

    assert ["1.5"] == done.out
    assert ["/reports/tiny/report"] == collector.paths
    (report,) = collector.reports
    assert {"machine_id", "status", "timestamp", "method", "seconds"} == set(report)
    assert ("success", "forward") == (report["status"], report["method"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", report["timestamp"])
    assert 0 < report["seconds"] < 1


def test_a_method_that_calls_another_is_one_report(collector: FakeCollector, program: Program) -> None:
    program(model(collector.url) + "model.generate(); model.forward(2.0)")

    assert ["generate", "forward"] == [report["method"] for report in collector.reports]


FAILING = """
import traceback
own = ValueError("not in /home/ada/photos", 7)
class Failing(Model):
    @t.tracked
    def forward(self, value):
        raise own
try:
    Failing().forward(1.0)
except ValueError as error:
    print(error is own, error.args == own.args, error.__context__ is None, traceback.extract_tb(error.__traceback__)[-1].name)
"""


def test_a_failing_call_raises_its_own_exception_and_reports_it(collector: FakeCollector, program: Program) -> None:
    done = program(model(collector.url) + FAILING)

    assert ["True True True forward"] == done.out
    (report,) = collector.reports
    assert "fail" == report["status"]
    assert not {"error", "traceback"} & set(report)


def test_full_detail_adds_error_texts_without_home_folders(collector: FakeCollector, program: Program) -> None:
    program(model(collector.url, "full") + FAILING, HOME="/somewhere/ada")

    (report,) = collector.reports
    assert "('not in ~/photos', 7)" == report["error"]
    assert "Traceback" in report["traceback"]
    assert "ada" not in json.dumps(report)


def test_an_installation_is_one_machine_per_model(collector: FakeCollector, program: Program, tmp_path: Path) -> None:
    for name in ("tiny", "tiny", "other"):
        settings = f"t.Settings({collector.url!r}, {name!r}, 'minimal')"
        program(f"import marline_tracker as t; t.Tracker({settings}).report('f', 'success', 0)")

    first, second, third = (report["machine_id"] for report in collector.reports)
    assert first == second != third
    assert (tmp_path / "data" / "marline" / "install_id").read_text() not in {first, third}


def test_an_unwritable_data_folder_is_no_obstacle(collector: FakeCollector, program: Program) -> None:
    program(model(collector.url) + "model.forward(1.0)", XDG_DATA_HOME="/proc/nothing")

    assert 1 == len(collector.reports)


def test_without_a_collector_nothing_is_started_or_written(program: Program, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())

    done = program(model(None) + "model.generate(); import threading; print(threading.active_count(), t._senders)")

    assert ["1 {}"] == done.out
    assert "" == done.log
    assert before == {path for path in tmp_path.iterdir() if path.name != "__pycache__"}


def test_the_first_report_is_announced_once(collector: FakeCollector, program: Program) -> None:
    done = program(model(collector.url) + "model.forward(1.0); model.forward(1.0)")

    (line,) = done.log.splitlines()
    assert line.startswith("tiny reports its use (method, outcome, duration, a random install id) to http://127.0.0.1")
    assert "MARLINE_TELEMETRY=off" in line


def test_a_hung_collector_slows_neither_the_calls_nor_the_end(collector: FakeCollector, program: Program) -> None:
    collector.answer.clear()

    done = program(
        model(collector.url) + "import time; model.forward(1.0); began = time.perf_counter()\n"
        "for _ in range(100): model.forward(1.0)\n"
        "print(time.perf_counter() - began)"
    )

    assert float(done.out[0]) < 0.1  # a synchronous report would be 2 s each
    assert done.seconds < 2 + 2


def test_a_collector_that_trickles_is_left_at_the_deadline(program: Program) -> None:
    done = program("""
import socket, threading, time
import marline_tracker as t
with socket.create_server(("127.0.0.1", 0)) as listener:
    def trickle():
        peer, _ = listener.accept()
        with peer:
            for byte in [b"H"] * 20:
                try: peer.sendall(byte)
                except OSError: return
                time.sleep(0.1)
    thread = threading.Thread(target=trickle)
    thread.start()
    began = time.monotonic()
    try:
        t.post(f"http://127.0.0.1:{listener.getsockname()[1]}/report", {}, began + 0.5)
    except TimeoutError:
        print(time.monotonic() - began)
    thread.join()
""")

    assert 0.5 == pytest.approx(float(done.out[0]), abs=0.25)


@pytest.mark.parametrize("status", [404, 500, 302])
def test_a_refused_report_is_dropped_counted_and_said_once(collector: FakeCollector, program: Program, status: int) -> None:
    collector.status = status

    done = program(model(collector.url) + "import time; model.generate(); model.forward(1.0); model.forward(1.0)")

    assert 3 == len(collector.reports)
    assert 1 == done.log.count("are being dropped")
    assert str(status) in done.log


def test_a_full_queue_drops_without_waiting(collector: FakeCollector, program: Program) -> None:
    collector.answer.clear()

    done = program(
        model(collector.url) + "import time; began = time.perf_counter()\n"
        "for _ in range(3000): model.tracker.report('forward', 'success', 0.0)\n"
        "print(time.perf_counter() - began); print(t.sender(model.tracker.settings.collector_url).dropped)"
    )

    seconds, dropped = map(float, done.out)
    assert seconds < 1
    assert 3000 - 2048 >= dropped >= 3000 - 2048 - 1  # one may be on its way
    assert "the queue is full" in done.log


def test_a_tracker_is_copied_and_pickled_with_its_owner(collector: FakeCollector, program: Program) -> None:
    program(
        model(collector.url) + "import copy, pickle\n"
        "model.tracker = t.Tracker(Model.tracker.settings); model.forward(1.0)\n"
        "copy.deepcopy(model).forward(2.0); pickle.loads(pickle.dumps(model)).forward(4.0)"
    )

    assert 3 == len(collector.reports)


def test_where_a_tracker_is_unpickled_the_wishes_of_that_place_count(collector: FakeCollector, program: Program) -> None:
    program(
        model(collector.url) + "import pickle; pickle.loads(pickle.dumps(Model.tracker)).report('f', 'success', 0)",
        DO_NOT_TRACK="1",
    )

    assert [] == collector.reports


def test_a_tracked_method_keeps_name_and_signature(program: Program) -> None:
    done = program(model(None) + "import inspect; print(Model.forward.__name__, inspect.signature(Model.forward))")

    assert ["forward (self, value: float, scale: float = 1.0) -> float"] == done.out
