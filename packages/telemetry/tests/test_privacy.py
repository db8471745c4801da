"""What never leaves, and under which name an installation reports."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marline.telemetry import FakeCollector, tracker

Program = Callable[..., Any]
Model = Callable[..., str]


@pytest.mark.parametrize(
    ("text", "scrubbed"),
    [
        ("no file /home/ada/photos/me.jpg here", "no file <path> here"),
        ("[Errno 2] No such file: '/srv/My Data/x.bin'", "[Errno 2] No such file: '<path>'"),
        (r"cannot open C:\Users\ada\x.bin", "cannot open <path>"),
        (r"\\share\ada\x and ~/notes.txt and ../up/x", "<path> and <path> and <path>"),
        ("401 for https://ada:word@host/x?token=abc!", "401 for <url>"),
        ("ask ada.lovelace+ml@example.co.uk", "ask <email>"),
        ("Authorization: Bearer abc.def", "Authorization: <secret> <secret>"),
        ("{'api_key': 'k-123', 'n': 2}", "{'api_key': '<secret>', 'n': 2}"),
        ("password=hunter2, retry", "password=<secret>, retry"),
        ("hf_abcdefghij and sk-abcdefghij and AKIAABCDEFGH", "<secret> and <secret> and <secret>"),
        ("digest 0123456789abcdef0123456789abcdef", "digest <secret>"),
        ("mat1 and mat2 shapes cannot be multiplied (8x3 and 4x2)", "mat1 and mat2 shapes cannot be multiplied (8x3 and 4x2)"),
        ("KeyError: 'encoder.layer.0.attention.self.query.weight'", "KeyError: 'encoder.layer.0.attention.self.query.weight'"),
        ("1/2 of the tokens/s, and/or none", "1/2 of the tokens/s, and/or none"),
    ],
)
def test_a_text_loses_what_is_private_and_keeps_what_explains(text: str, scrubbed: str) -> None:
    assert scrubbed == tracker._scrubbed(text)


@given(
    text=st.text(max_size=300).map(lambda part: part * 60)
    | st.sampled_from(["a.", "a@", "/a", "a-1", "a:/", "'/"]).map(lambda part: part * 9000)
)
@settings(max_examples=50, deadline=None)
def test_no_text_is_odd_enough_to_take_long(text: str) -> None:
    began = time.perf_counter()

    tracker._scrubbed(text)

    assert time.perf_counter() - began < 0.5


def test_a_secret_at_the_edge_of_what_is_kept_is_not_cut_into_something_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "correct horse battery staple")
    path = "/" + "a" * (2 * tracker.LONGEST_TEXT - 20)

    assert "<path> <secret> x" == tracker._scrubbed(f"{path} correct horse battery staple x")
    assert "<path> then" == tracker._scrubbed(f"{path} then hf_abcdefghijklmnop")


CANARIES = {"HF_TOKEN": "canary-in-token", "MY_PASSWORD": "canary pass", "CUDA_HOME": "/opt/canary-cuda"}
LEAKING = """
import os
class Leaking(Model):
    @t.tracked
    def forward(self, prompt):
        token = "hf_canaryhfcanaryhf"
        raise RuntimeError(f"{os.environ['HF_TOKEN']} {os.environ['MY_PASSWORD']} /home/canary/x 'C:\\\\canary' me@canary.org "
                           f"https://canary.org/x token={token} " + "x" * 9000)
try: Leaking().forward("dear canary")
except RuntimeError: pass
"""


@pytest.mark.parametrize("detail", ["minimal", "full"])
@pytest.mark.parametrize("batches", [True, False])
def test_no_canary_leaves(collector: FakeCollector, program: Program, model: Model, detail: str, batches: bool) -> None:
    collector.batches = batches

    program(model(collector.url, detail) + LEAKING, **CANARIES)

    (report,) = collector.reports
    assert "canary" not in json.dumps(collector.posted)
    assert ({"error", "traceback", "env_info"} <= set(report)) == (detail == "full")
    assert len(json.dumps(report)) < 16 * 1024


def test_full_detail_tells_where_a_call_failed_and_on_what(collector: FakeCollector, program: Program, model: Model) -> None:
    program(model(collector.url, "full") + "try: model.forward(0.0)\nexcept ZeroDivisionError: pass")

    (report,) = collector.reports
    assert "float division by zero" == report["error"]
    assert report["traceback"].startswith('Traceback (most recent call last):\n  File "marline_tracker.py", line ')
    assert report["traceback"].endswith(", in forward\nZeroDivisionError: float division by zero")
    assert {"os_info", "python_info", "cuda_info", "gpu_info"} == set(report["env_info"])
    assert {"version", "implementation", "compiler"} == set(report["env_info"]["python_info"])
    assert {"system", "release", "version", "machine"} == set(report["env_info"]["os_info"])


def test_no_other_program_is_started(collector: FakeCollector, program: Program, model: Model) -> None:
    program(
        "import sys\n"
        "started = []\n"
        "sys.addaudithook(lambda event, _: started.append(event) if event in {'subprocess.Popen', 'os.system'} else None)\n"
        + model(collector.url, "full")
        + "try: model.forward(0.0)\nexcept ZeroDivisionError: pass\n"
        "import time; time.sleep(1); assert not started, started"
    )

    assert "env_info" in collector.reports[0]


def test_an_installation_is_one_machine_per_model_until_its_id_is_deleted(
    collector: FakeCollector, program: Program, tmp_path: Path
) -> None:
    kept = tmp_path / "data" / "marline" / "install_id"
    for name in ("tiny", "tiny", "other", "tiny"):
        if len(collector.reports) == 3:
            kept.unlink()
        settings = f"t.Settings({collector.url!r}, {name!r}, 'minimal')"
        program(f"import marline_tracker as t; t.Tracker(settings := {settings}).report('f', 'success', 0)")

    first, second, third, fourth = (report["machine_id"] for report in collector.reports)
    assert first == second
    assert 3 == len({first, third, fourth})
    assert kept.read_text() not in {first, third, fourth}
    assert [kept] == list(kept.parent.iterdir())


def test_many_processes_that_start_at_once_agree_on_one_id(program: Program) -> None:
    done = program(
        "import os, warnings; warnings.simplefilter('ignore'); import marline_tracker as t\n"
        "read, write = os.pipe()\n"
        "for _ in range(20):\n"
        "    if os.fork() == 0: os.write(write, f'{t._install_id()}|'.encode()); os._exit(0)\n"
        "for _ in range(20): os.wait()\n"
        "told = os.read(read, 65536).decode().split('|')[:-1]; print(len(told), len(set(told)), 'True' in told[0])"
    )

    assert ["20 1 False"] == done.out


@pytest.mark.parametrize("kept", [None, "garbage"])
def test_an_id_that_cannot_be_kept_is_said_to_be_ephemeral(
    collector: FakeCollector, program: Program, model: Model, tmp_path: Path, kept: str | None
) -> None:
    home = tmp_path / "data"
    if kept is not None:
        (home / "marline").mkdir(parents=True)
        (home / "marline" / "install_id").write_text(kept)

    program(model(collector.url) + "model.forward(1.0)", XDG_DATA_HOME=str(home) if kept else "/proc/nothing")

    assert collector.reports[0]["ephemeral"] is True


def test_an_id_that_is_kept_is_only_read(program: Program, tmp_path: Path) -> None:
    code = "import marline_tracker as t; print(t._install_id())"
    first = program(code).out
    before = (tmp_path / "data" / "marline").stat().st_mtime_ns

    second = program(code).out

    assert first == second
    assert before == (tmp_path / "data" / "marline").stat().st_mtime_ns  # where nothing may be written it is read as well


def test_where_files_cannot_be_linked_no_draft_of_an_id_stays(program: Program, tmp_path: Path) -> None:
    done = program(
        "import sys, marline_tracker as t\n"
        "def refuse(event, _):\n"
        "    if event == 'os.link': raise PermissionError\n"
        "sys.addaudithook(refuse); print(t._install_id()[1])"
    )

    assert ["True"] == done.out
    assert [] == list((tmp_path / "data" / "marline").iterdir())
