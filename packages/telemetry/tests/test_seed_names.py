"""Code written by byne-serve's manual guide, and classes that take the mixin."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.telemetry import FakeCollector

Program = Callable[..., Any]

GUIDED = """
from marline_tracker import error_handler, get_env_info, get_machine_id, send_report

class YourCustomModel:
    def __init__(self, scale):
        self.machine_id = get_machine_id()
        self.scale = scale

    @error_handler
    def forward(self, value):
        return self.scale / value

    @error_handler
    def generate(self, *values):
        return [self.forward(value) for value in values]
"""
MIXED = """
from marline_tracker import TrackedMixin, tracked

class Pretrained:
    def __init__(self, scale): self.scale = scale
    @classmethod
    def from_pretrained(cls, name, **kwargs): return cls(**kwargs)
    def save_pretrained(self, folder): return folder

class Mixed(TrackedMixin, Pretrained):
    @tracked
    def forward(self, value): return self.scale / value
"""


@pytest.fixture
def told(tmp_path: Path, collector: FakeCollector) -> Callable[..., None]:
    """Write `tracker.json` into a folder."""

    def write(folder: Path = tmp_path, detail: str = "minimal") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"collector_url": collector.url, "model": "guided", "detail": detail, "sample_rate": 1.0, "version": "7"}
        (folder / "tracker.json").write_text(json.dumps(settings))

    return write


def test_a_class_written_by_the_guide_reports_through_the_queue(
    collector: FakeCollector, program: Program, told: Callable[..., None], tmp_path: Path
) -> None:
    told()
    (tmp_path / "guided.py").write_text(GUIDED)

    done = program(
        "from guided import YourCustomModel; model = YourCustomModel(4.0); print(model.generate(1.0, 2.0))\n"
        "try: model.forward(0.0)\n"
        "except ZeroDivisionError: print(model.machine_id)"
    )

    generated, failed = collector.reports
    assert ["[4.0, 2.0]", generated["machine_id"]] == done.out
    assert ("guided", "generate", "success", "7") == tuple(
        generated[key] for key in ("model", "method", "status", "model_version")
    )
    assert ("forward", "fail", "ZeroDivisionError") == (failed["method"], failed["status"], failed["error_class"])


def test_without_settings_or_against_the_users_wish_the_guided_class_just_works(
    collector: FakeCollector, program: Program, told: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "guided.py").write_text(GUIDED)
    code = "from guided import YourCustomModel; print(YourCustomModel(4.0).forward(2.0))"

    alone = program(code)
    told()
    refused = program(code, DO_NOT_TRACK="1")

    assert [["2.0"], ["2.0"]] == [alone.out, refused.out]
    assert [] == collector.reports


def test_where_nothing_is_reported_no_id_is_made(program: Program, told: Callable[..., None], tmp_path: Path) -> None:
    code = "from marline_tracker import get_machine_id; print(repr(get_machine_id()))"

    alone = program(code)
    told()
    refused = program(code, DO_NOT_TRACK="1")

    assert [["''"], ["''"]] == [alone.out, refused.out]
    assert not (tmp_path / "data").exists()


def test_a_guided_class_with_a_tracker_of_another_kind_is_reported(
    collector: FakeCollector, program: Program, told: Callable[..., None], tmp_path: Path
) -> None:
    told()
    (tmp_path / "guided.py").write_text(GUIDED)

    program("from guided import YourCustomModel; model = YourCustomModel(4.0); model.tracker = object(); model.forward(1.0)")

    assert ["forward"] == [report["method"] for report in collector.reports]


def test_a_class_with_the_mixin_that_is_made_from_no_name_is_made(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mixed.py").write_text(MIXED)

    done = program(
        "import sys, types; sys.modules['huggingface_hub'] = types.SimpleNamespace()\n"
        "from mixed import Mixed; print(Mixed.from_pretrained(None, scale=4.0).forward(2.0))"
    )

    assert ["2.0"] == done.out


@pytest.mark.parametrize("detail", ["minimal", "full"])
def test_a_report_of_the_seeds_own_shape_is_queued(
    collector: FakeCollector, program: Program, told: Callable[..., None], detail: str
) -> None:
    told(detail=detail)

    program(
        "from marline_tracker import get_env_info, get_machine_id, send_report\n"
        "send_report(dict(machine_id=get_machine_id(), status='success', timestamp='2024-10-21 10:00:00', method='f'))\n"
        "send_report({'machine_id': 'x', 'status': 'fail', 'timestamp': '', 'method': 'f', 'error': 'at /home/ada/x',\n"
        "             'traceback': 'x', 'env_info': get_env_info()})\n"
        "send_report({})"
    )

    good, bad, _ = collector.reports
    assert ("f", "success", "f", "fail") == (good["method"], good["status"], bad["method"], bad["status"])
    assert (None if detail == "minimal" else "at <path>") == bad.get("error")
    assert not good["timestamp"].startswith("2024")


def test_surroundings_are_told_without_packages_and_variables(program: Program) -> None:
    done = program("from marline_tracker import get_env_info; import json; print(json.dumps(get_env_info()))")

    assert {"os_info", "python_info", "cuda_info", "gpu_info"} == set(json.loads(done.out[0]))


@pytest.mark.parametrize("where", ["beside the class", "where it was loaded from"])
def test_a_class_with_the_mixin_finds_its_settings(
    collector: FakeCollector, program: Program, told: Callable[..., None], tmp_path: Path, where: str
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mixed.py").write_text(MIXED)
    told(tmp_path / ("code" if where == "beside the class" else "weights"))

    done = program(
        "import sys; sys.path.append('code'); import types; from mixed import Mixed\n"
        "model = Mixed.from_pretrained('weights', scale=4.0)\n"
        "model.config = types.SimpleNamespace(_name_or_path='weights')\n"
        "print(model.forward(2.0)); print(model.save_pretrained('saved'))"
    )

    assert ["2.0", "saved"] == done.out
    assert ["forward"] == [report["method"] for report in collector.reports]
    assert "guided" == json.loads((tmp_path / "saved" / "tracker.json").read_text())["model"]


def test_a_class_with_the_mixin_asks_the_hub_for_its_settings(
    collector: FakeCollector, program: Program, told: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mixed.py").write_text(MIXED)
    told(tmp_path / "cache")

    done = program(
        "import sys; sys.path.append('code'); import types; from mixed import Mixed\n"
        "def download(repo, file, **which): print(repo, file, which); return 'cache/' + file\n"
        "sys.modules['huggingface_hub'] = types.SimpleNamespace(hf_hub_download=download)\n"
        "Mixed.__init__ = lambda self, revision: setattr(self, 'scale', 4.0)\n"
        "print(Mixed.from_pretrained('ORG/NAME', revision='main').forward(2.0))"
    )

    assert ["ORG/NAME tracker.json {'revision': 'main'}", "2.0"] == done.out
    assert ["forward"] == [report["method"] for report in collector.reports]
