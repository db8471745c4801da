"""The command that injects faults refuses what there is not, and counts what passed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.faults import _round, _together, main

ROOT = Path(__file__).parents[1]
FAULT = """
import pytest

@pytest.mark.faults("F90", "nothing", "nothing follows", seconds=5)
def test_f90_what_holds() -> None:
    pass

@pytest.mark.faults("F91", "a wait", "it is over in time", seconds=0.2)
def test_f91_what_takes_too_long() -> None:
    import time
    time.sleep(3)
"""


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("group=cooking", "group=cooking: the groups are deploy"),
        ("only=F99", "only=F99: the faults are F01, F02"),
        ("times=0", "times=0: write a number of rounds"),
        ("F07", "'F07' is not understood; write group=GROUP, only=FAULT or times=NUMBER"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_starts(word: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main([word])
    assert said in capsys.readouterr().err


def test_every_fault_of_the_server_has_a_test() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "faults", "tests/faults/deploy"]
    collected = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout

    expected = {f"test_f{number:02}_" for number in [*range(1, 19), 25]}
    assert set() == {name for name in expected if name not in collected}


def test_a_round_says_of_each_fault_whether_it_passed_and_in_what_time(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "faults" / "conftest.py").read_text())
    (tmp_path / "test_two.py").write_text(FAULT)

    first, second = _round(tmp_path, "")

    assert ("F90", tmp_path.name, "nothing", "nothing follows", 5, "") == tuple(
        first[key] for key in ("fault", "group", "what", "expected", "budget_s", "why")
    )
    assert "failure: Failed: Timeout" in second["why"]
    assert 0.2 <= second["seconds"] < 2
    assert ["F91"] == [row["fault"] for row in _round(tmp_path, "F91")]


def test_rounds_are_counted_in_which_every_test_of_a_fault_passed() -> None:
    good: dict[str, Any] = {"fault": "F90", "group": "deploy", "what": "it", "expected": "this", "budget_s": 5.0, "why": ""}
    bad = {**good, "why": "failure: no"}

    rounds = [
        [{**good, "seconds": 1.0}] * 2,
        [{**bad, "seconds": 3.0}, {**good, "seconds": 1.0}],
        [{**good, "seconds": 2.0}] * 2,
    ]
    (together,) = _together(rounds)

    assert together == json.loads(json.dumps(together))
    assert (2, 3.0, "failure: no") == (together["passed"], together["seconds"], together["why"])
