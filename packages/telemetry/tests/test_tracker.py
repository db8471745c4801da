"""What a call of a tracked method reports, and that the call itself stays as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.telemetry import FakeCollector

Program = Callable[..., Any]
Model = Callable[..., str]


def test_a_call_is_one_report(collector: FakeCollector, program: Program, model: Model) -> None:
    done = program(model(collector.url) + "print(model.forward(2.0, scale=3.0))")

    assert ["1.5"] == done.out
    assert ["/reports/tiny/reports"] == collector.paths
    (report,) = collector.reports
    common = {"id", "model", "method", "status", "timestamp", "duration_s", "sample_rate", "machine_id", "sdk"}
    assert common == set(report)
    assert ("tiny", "forward", "success", 1.0) == tuple(report[name] for name in ("model", "method", "status", "sample_rate"))
    assert 0 < report["duration_s"] < 1


def test_byne_serve_gets_a_report_as_its_schema_has_it(byne_serve: FakeCollector, program: Program, model: Model) -> None:
    program(model(byne_serve.url) + "model.forward(2.0)")

    assert ["/reports/tiny/report"] == byne_serve.paths
    assert {"machine_id", "status", "timestamp", "method"} == set(byne_serve.reports[0])


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


def test_a_failing_call_raises_its_own_exception_and_reports_its_class(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    done = program(model(collector.url) + FAILING)

    assert ["True True True forward"] == done.out
    (report,) = collector.reports
    assert ("fail", "ValueError") == (report["status"], report["error_class"])
    assert not {"error", "traceback", "env_info"} & set(report)


def test_to_byne_serve_the_class_is_the_error(byne_serve: FakeCollector, program: Program, model: Model) -> None:
    program(model(byne_serve.url) + FAILING)

    assert "ValueError" == byne_serve.reports[0]["error"]


def test_an_error_that_counts_as_false_is_a_failure(collector: FakeCollector, program: Program, model: Model) -> None:
    program(
        model(collector.url) + "class Empty(Exception):\n"
        "    def __len__(self): return 0\n"
        "class Failing(Model):\n"
        "    @t.tracked\n"
        "    def forward(self): raise Empty\n"
        "try: Failing().forward()\n"
        "except Empty: pass"
    )

    assert [("fail", "Empty")] == [(report["status"], report["error_class"]) for report in collector.reports]


def test_a_call_that_is_interrupted_is_neither_a_success_nor_a_failure(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    program(
        model(collector.url) + "class Slow(Model):\n"
        "    @t.tracked\n"
        "    def forward(self): raise KeyboardInterrupt\n"
        "try: Slow().forward()\n"
        "except KeyboardInterrupt: model.generate()"
    )

    assert ["generate"] == [report["method"] for report in collector.reports]


TENSOR = """
class Tensor:
    def __init__(self, *shape): self.shape = shape
    device, dtype = "cuda:0", "torch.float16"
class Config: _commit_hash = "0123abc"
class Odd:
    @property
    def shape(self): raise RuntimeError("not for you")
class Batched(Model):
    config = Config()
    @t.tracked
    def forward(self, *args, **kwargs): return 7
batched = Batched()
"""


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        ("batched.forward('text', Tensor(8, 3), Tensor(5))", (8, "cuda:0", "float16")),
        ("batched.forward(mask=None, inputs=Tensor(2, 3))", (2, "cuda:0", "float16")),
        ("batched.forward(Tensor())", (1, "cuda:0", "float16")),
        ("batched.forward([1, 2])", (None, None, None)),
    ],
)
def test_a_report_says_how_large_the_batch_was_and_where_it_was(
    collector: FakeCollector, program: Program, model: Model, call: str, facts: tuple[Any, ...]
) -> None:
    program(model(collector.url) + TENSOR + call)

    (report,) = collector.reports
    assert facts == tuple(report.get(name) for name in ("batch_size", "device", "dtype"))
    assert "0123abc" == report["model_version"]


def test_of_a_structured_array_the_names_of_its_fields_stay_here(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    program(
        model(collector.url) + TENSOR + "class Dtype:\n"
        "    name = 'void64'\n"
        "    def __str__(self): return \"[('salary', '<f8')]\"\n"
        "table = Tensor(3); table.dtype = Dtype(); batched.forward(table)"
    )

    assert "void64" == collector.reports[0]["dtype"]


def test_a_duration_that_json_cannot_hold_costs_no_other_report(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    program(model(collector.url) + "model.tracker.report('f', 'success', float('nan')); model.forward(1.0)")

    assert ["f", "forward"] == [report["method"] for report in collector.reports]
    assert "duration_s" not in collector.reports[0]


def test_an_argument_that_refuses_to_be_looked_at_costs_the_report_and_not_the_call(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    done = program(model(collector.url) + TENSOR + "print(batched.forward(Odd())); batched.forward()")

    assert ["7"] == done.out
    assert 1 == len(collector.reports)


def test_facts_nobody_asked_for_are_not_sent(collector: FakeCollector, program: Program, model: Model) -> None:
    program(model(collector.url) + "model.tracker.report('forward', 'success', 0.1, batch_size=3, prompt='dear diary')")

    assert 3 == collector.reports[0]["batch_size"]
    assert "prompt" not in collector.reports[0]


def test_a_share_is_sampled_and_the_hosts_random_numbers_stay_as_they_are(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    done = program(
        model(collector.url, rate=0.25) + "import random; random.seed(7); state = random.getstate()\n"
        "for _ in range(2000): model.forward(1.0)\n"
        "print(random.getstate() == state)"
    )

    assert ["True"] == done.out
    assert 500 == pytest.approx(len(collector.reports), abs=120)  # six standard deviations
    assert {0.25} == {report["sample_rate"] for report in collector.reports}


def test_without_a_collector_nothing_is_started_or_written(program: Program, model: Model, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())

    done = program(model(None) + "model.generate(); import threading; print(threading.active_count(), t._senders)")

    assert ["1 {}"] == done.out
    assert "" == done.log
    assert before == {path for path in tmp_path.iterdir() if path.name != "__pycache__"}


def test_the_first_report_is_announced_once(collector: FakeCollector, program: Program, model: Model) -> None:
    done = program(model(collector.url) + "model.forward(1.0); model.forward(1.0)")

    (line,) = done.log.splitlines()
    assert line.startswith(
        "tiny reports its use (method, outcome, duration, batch size, device, a random install id) to http://127.0.0.1"
    )
    assert "MARLINE_TELEMETRY=off" in line


def test_a_tracker_is_copied_and_pickled_with_its_owner(collector: FakeCollector, program: Program, model: Model) -> None:
    program(
        model(collector.url) + "import copy, pickle\n"
        "model.tracker = t.Tracker(Model.tracker.settings); model.forward(1.0)\n"
        "copy.deepcopy(model).forward(2.0); copy.copy(model).forward(2.0); pickle.loads(pickle.dumps(model)).forward(4.0)"
    )

    assert 4 == len(collector.reports)


def test_where_a_tracker_is_unpickled_the_wishes_of_that_place_count(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    program(
        model(collector.url) + "import pickle; pickle.loads(pickle.dumps(Model.tracker)).report('f', 'success', 0)",
        DO_NOT_TRACK="1",
    )

    assert [] == collector.reports


def test_a_tracked_method_keeps_name_and_signature(program: Program, model: Model) -> None:
    done = program(
        model(None) + "import inspect; print(Model.forward.__name__, inspect.signature(Model.forward))\n"
        "async def later(self): ...\n"
        "print(inspect.iscoroutinefunction(t.tracked(later)))"
    )

    assert ["forward (self, value: float, scale: float = 1.0) -> float", "True"] == done.out
