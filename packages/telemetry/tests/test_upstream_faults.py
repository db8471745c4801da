"""The faults of byne-serve's tracker, by the numbers of our list of them, each with the proof that ours has it not."""

import ast
import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from marline.telemetry import FILE, FakeCollector, Settings, read_settings, write_settings

Program = Callable[..., Any]
Model = Callable[..., str]


def test_t1_a_generation_is_one_report_and_does_not_wait_for_the_collector(
    collector: FakeCollector, program: Program, model: Model
) -> None:
    collector.delay_s = 1.5

    done = program(
        model(collector.url) + "import time; began = time.perf_counter(); model.generate(); print(time.perf_counter() - began)"
    )

    assert ["generate"] == [report["method"] for report in collector.reports]
    assert float(done.out[0]) < 0.75  # a blocking POST for `generate` and each of its three tokens takes six seconds


GUIDED = """
from marline_tracker import TrackedMixin, error_handler, tracked
class Model:
    @error_handler
    def __init__(self, config, *layers, scale=1):
        raise KeyError("no such size", config, *layers, scale)
class Mixed(TrackedMixin):
    @tracked
    def __init__(self, config, *layers, scale=1):
        self.made = (config, *layers, scale)
"""


def test_t2_a_constructor_that_fails_raises_its_own_error_and_is_reported(
    collector: FakeCollector, program: Program, tmp_path: Path
) -> None:
    write_settings(Settings(collector.url, "tiny", "minimal"), tmp_path / "tracker.json")

    done = program(GUIDED + "try: Model(1, 2, scale=3)\nexcept KeyError as error: print(error.args, error.__context__)")

    assert ["('no such size', 1, 2, 3) None"] == done.out
    assert [("__init__", "KeyError")] == [(report["method"], report["error_class"]) for report in collector.reports]


def test_t3_a_constructor_gets_all_its_arguments(collector: FakeCollector, program: Program, tmp_path: Path) -> None:
    write_settings(Settings(collector.url, "tiny", "minimal"), tmp_path / "tracker.json")

    done = program(GUIDED + "print(Mixed('config', 'a', 'b', scale=2).made)")

    assert ["('config', 'a', 'b', 2)"] == done.out


def test_t9_neither_variables_nor_packages_nor_paths_nor_inputs_leave(
    collector: FakeCollector, program: Program, model: Model, tmp_path: Path
) -> None:
    program(
        model(collector.url, "full") + "try: model.forward('my diary')\nexcept TypeError: pass",
        CUDA_CANARY="canary",
        PYTHON_CANARY="canary",
    )

    text = json.dumps(collector.posted)
    assert "TypeError" in text
    assert [] == [word for word in ("canary", str(tmp_path), "installed_packages", "my diary", "PATH") if word in text]


def test_t10_an_installation_keeps_its_id_wherever_it_runs_and_leaves_nothing_there(
    collector: FakeCollector, program: Program, model: Model, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    before = set(tmp_path.iterdir())

    program(model(collector.url) + "model.forward(1.0)")
    program(model(collector.url) + "import os; os.chdir('elsewhere'); model.forward(1.0)")

    first, second = collector.reports
    assert first["machine_id"] == second["machine_id"]
    assert {"data", "__pycache__"} >= {path.name for path in set(tmp_path.iterdir()) - before}
    assert [] == list((tmp_path / "elsewhere").iterdir())


def test_t11_a_user_is_told_and_can_say_no(collector: FakeCollector, program: Program, tmp_path: Path) -> None:
    write_settings(Settings(collector.url, "tiny", "minimal"), tmp_path / "tracker.json")
    code = (
        "from marline_tracker import TrackedMixin, tracked\nclass M(TrackedMixin):\n    @tracked\n    def f(self): ...\nM().f()"
    )

    told = program(code)
    logs = [program(code, **{name: "1"}).log for name in ("DO_NOT_TRACK", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")]
    logs += [program(code, MARLINE_TELEMETRY="off").log, program(code, PYTEST_CURRENT_TEST="test (call)").log]

    assert (
        f"tiny reports its use (method, outcome, duration, batch size, device, a random install id) to {collector.url}"
        in told.log
    )
    assert [""] * 5 == logs
    assert 1 == len(collector.reports)


def test_t12_the_file_needs_the_standard_library_alone() -> None:
    nodes = list(ast.walk(ast.parse(FILE.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}

    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


TORCH = """
from types import SimpleNamespace as N
cuda = N(is_initialized=lambda: {used}, device_count=lambda: 1, get_device_properties=lambda index: N(name="Radeon"))
import sys; sys.modules["torch"] = N(cuda=cuda, version=N(cuda=None, hip="6.2"))
import json, marline_tracker; told = marline_tracker.get_env_info(); print(json.dumps([told["gpu_info"], told["cuda_info"]]))
"""


@pytest.mark.parametrize(
    ("used", "told"), [(True, [["Radeon"], {"available": True, "version": "6.2"}]), (False, [[], {"available": False}])]
)
def test_t13_gpus_are_those_torch_is_using_of_any_maker(program: Program, used: bool, told: list[Any]) -> None:
    assert told == json.loads(program(TORCH.format(used=used)).out[0])


def test_t14_times_are_utc_and_say_so(collector: FakeCollector, program: Program, model: Model) -> None:
    program(model(collector.url) + "model.forward(1.0)", TZ="Asia/Tokyo")

    when = datetime.fromisoformat(collector.reports[0]["timestamp"])
    assert timedelta(0) == when.utcoffset()
    assert time.time() == pytest.approx(when.timestamp(), abs=30)


def test_t15_a_report_has_what_a_capacity_plan_needs(collector: FakeCollector, program: Program, model: Model) -> None:
    program(
        model(collector.url) + "facts = dict(batch_size=8, device='cuda:0', dtype='float16', model_version='1.2')\n"
        "model.tracker.report('forward', 'fail', 0.0123, ValueError(), **facts)"
    )

    (report,) = collector.reports
    wanted = {"duration_s": 0.0123, "batch_size": 8, "device": "cuda:0", "dtype": "float16", "model_version": "1.2"}
    assert (wanted | {"error_class": "ValueError", "sdk": "marline-tracker/2"}).items() <= report.items()
    assert 32 == len(report["id"])


def test_t17_an_address_is_data_and_no_code(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = "http://host/') or print('"
    write_settings(Settings(url, "tiny", "minimal"), tmp_path / "tracker.json")

    assert read_settings(tmp_path / "tracker.json").collector_url is None
    assert "is no http(s) address" in caplog.text


DISTRIBUTED = """
import sys, types
told = types.SimpleNamespace(is_available=lambda: True, is_initialized=lambda: True, get_rank=lambda: {rank})
sys.modules["torch.distributed"] = told
"""


def test_t23_of_many_processes_the_first_reports(collector: FakeCollector, program: Program, model: Model) -> None:
    for rank in (0, 1):
        program(model(collector.url) + f"model.tracker.report('variable {rank}', 'success', 0)", RANK=str(rank))
        code = DISTRIBUTED.format(rank=rank) + f"model.tracker.report('torch {rank}', 'success', 0)"
        program(model(collector.url, rate=0.999_999) + code)

    assert ["variable 0", "torch 0"] == [report["method"] for report in collector.reports]
    assert [1.0, 0.999_999] == [report["sample_rate"] for report in collector.reports]
