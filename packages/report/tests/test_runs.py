"""Runs that are done: listed, also where they are broken, compared, and accepted."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from marline.core import accepted
from marline.report._list import listed, models
from marline.report._runs import main

Make = Callable[..., Path]
FIRST, SECOND, THIRD = "20260101-030000-aaaa", "20260102-030000-bbbb", "20260103-030000-cccc"
CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture(scope="module")
def twice(make_in: Callable[[Path], Make], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two complete runs of a model, the second 20 % slower; gives the folder of all models."""
    place = tmp_path_factory.mktemp("twice")
    make = make_in(place)
    folder = make(name=FIRST)
    result = json.loads((folder.parent / "tune" / "result.json").read_text())
    slower = [point | {"p50_ms": 1.2 * point["p50_ms"]} for point in result["curve"]]
    make(name=SECOND, curve=slower, tuned={"archive": "tuned/resnet50.mar", "sha256": "6a" * 32}, profile="thorough")
    (place / "resnet50" / "latest").symlink_to(SECOND)
    return place


@pytest.fixture
def done(twice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of these runs, in the folder of the test and the current one."""
    shutil.copytree(twice, tmp_path, symlinks=True, dirs_exist_ok=True)
    shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*told: str, done: Path) -> list[str]:
    return [*told, f"artifacts={done}"]


def test_a_list_shows_every_run_and_what_it_found(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(words("model=resnet50", "accept=latest", done=done))
    make = [
        re.split(r"\s{2,}", row.strip())
        for row in (main(words("list=true", done=done)), capsys.readouterr().out)[1].splitlines()
    ]

    rows = [row for row in make if row[0] == "resnet50"]
    assert [FIRST, SECOND] == [row[1] for row in rows]
    assert ["2026-01-01 03:00", "standard", "Intel Xeon Platinum 8370C", "p99 ≤ 183 ms", "4 / 2 / 1", "27.2", "167"] == rows[0][
        2:9
    ]
    assert ["1.33 ×", "met"] == rows[0][9:]
    assert ["met", "latest, accepted"] == rows[1][10:]
    assert SECOND == accepted(done, "resnet50")


def test_unfinished_and_damaged_runs_are_listed_as_such(done: Path) -> None:
    breaks: dict[str, Callable[[Path], object]] = {
        "20260104-030000-dddd": lambda run: shutil.rmtree(run / "report"),
        "20260105-030000-eeee": lambda run: shutil.rmtree(run / "tune"),
        "20260106-030000-ffff": lambda run: (run / "tune" / "manifest.json").write_text("{"),
        "20260107-030000-abcd": lambda run: (run / "tune" / "manifest.json").write_text(
            (run / "load" / "manifest.json").read_text()
        ),
    }
    for name, break_it in breaks.items():
        run = done / "resnet50" / name
        shutil.copytree(done / "resnet50" / FIRST, run)
        break_it(run)
    (done / "resnet50" / "20260108-030000-0123").mkdir()
    (done / "resnet50" / "not-a-run").mkdir()
    (done / "bench" / "some-long-name").mkdir(parents=True)

    states = {row.cells[1]: row.cells[-1] for row in listed(done, models(done)).rows}

    assert ["resnet50"] == models(done)
    assert "not-a-run" not in states
    assert "unfinished, after tune" == states["20260104-030000-dddd"]
    assert states["20260105-030000-eeee"].startswith("unfinished, after")
    assert states["20260106-030000-ffff"].startswith("damaged: ")
    assert states["20260107-030000-abcd"].startswith("damaged: ")
    assert "unfinished" == states["20260108-030000-0123"]


def test_two_runs_are_compared_in_three_files(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(words(f"compare={FIRST},{SECOND}", done=done))

    folder = done / "resnet50" / "compared" / f"{FIRST}_{SECOND}"
    found = json.loads((folder / "compare.json").read_text())
    metrics = {row["metric"]: row for row in found["metrics"]}
    assert [f"resnet50 {FIRST}", f"resnet50 {SECOND}"] == found["runs"]
    assert [1.2, 1.2] == [pytest.approx(metrics[name]["ratios"][0]["value"]) for name in ("t1_ms", "batch_ms")]
    assert metrics["p99_ms"]["ratios"][0]["value"] is None
    assert {"tuned archive sha256": ["5f" * 6, "6a" * 6], "profile": ["standard", "thorough"]} == found["differs"]
    page = (folder / "compare.html").read_text()
    assert "1.20 (0 to ∞)" in page
    assert {">200<", ">offered load, requests/s<", f">{FIRST}: batchSize 4, maxBatchDelay 2 ms, 1 worker<"} <= set(
        re.findall(">[^<>]+<", page)
    )
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "| t1\\_ms |" in (folder / "compare.md").read_text() or "| t1_ms |" in (folder / "compare.md").read_text()
    picture = (folder / "throughput_latency.svg").read_text()
    assert ">200<" in picture
    assert "$" not in picture
    assert str(folder / "compare.html") in capsys.readouterr().out.replace("\n", "")
    assert 2 == len(listed(done, ["resnet50"]).rows)


def test_runs_of_other_conditions_stand_beside_each_other_without_ratios(
    make: Make, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(name=THIRD, slo={"percentile": 99, "ms": 90.0, "origin": "config"})

    assert 0 == main(words(f"compare={FIRST},{done}/resnet50/{THIRD}/report/report.json,{SECOND}", done=done))

    folder = done / "resnet50" / "compared" / f"{FIRST}_{THIRD}_{SECOND}"
    found = json.loads((folder / "compare.json").read_text())
    assert {THIRD: ["slo.ms is 90.0 here and was 183.0 there"]} == found["not_comparable"]
    assert [None, 1.2] == [one["value"] and round(one["value"], 3) for one in found["metrics"][-1]["ratios"]]
    assert f"{THIRD} is not compared: slo.ms is 90.0 here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (["compare=20260101-030000-aaaa"], "names one run; write compare=RUN,RUN"),
        (["compare=20260101-030000-aaaa,20269999-030000-aaaa"], "20269999-030000-aaaa/report/report.json; nox -s report"),
        (["accept=latest"], "write model=NAME accept=RUN"),
        (["model=resnet50", "accept=../20260101-030000-aaaa"], "names no run of resnet50"),
        (["model=resnet50", "accept=20269999-030000-aaaa"], "is no complete run"),
        (["model=..", "list=true"], "is no name of a model; resnet50 have runs"),
        (["model=other", "list=true"], "no run of other in"),
        (["list=true", "lits=true"], "lits=true has no effect here"),
    ],
)
def test_a_wrong_request_is_refused(told: list[str], said: str, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 2 == main(words(*told, done=done))

    assert said in capsys.readouterr().err


def test_a_file_that_is_no_report_is_refused(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (done / "broken.json").write_text("{")
    (done / "other.json").write_text('{"model": "x"}')

    for name, said in (("broken.json", "is damaged"), ("other.json", "it has no 'run'")):
        assert 2 == main(words(f"compare={FIRST},{done / name}", done=done))
        assert said in capsys.readouterr().err
