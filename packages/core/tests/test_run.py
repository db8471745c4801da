import re
from collections.abc import Callable
from pathlib import Path

import pytest

from marline.core import (
    Manifest,
    RequestError,
    accept,
    accepted,
    adopt,
    complete,
    is_complete,
    new_run,
    newest,
    read_manifest,
    runs,
    verify,
)

Make = Callable[..., Manifest]


def finished(artifacts: Path, sealed: Make, name: str, *stages: str) -> Path:
    """A run of the model tiny in which these stages are done."""
    run = artifacts / "tiny" / name
    run.mkdir(parents=True)
    for stage in stages:
        sealed(run / stage, {"made.txt": f"{stage} of {name}"})
    return run


def test_a_new_run_is_empty_unique_and_named_by_time(tmp_path: Path) -> None:
    made = [new_run(tmp_path, "tiny") for _ in range(20)]

    assert 20 == len({run.name for run in made})
    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", run.name) and not [*run.iterdir()] for run in made)
    assert sorted(made) == runs(tmp_path, "tiny")


def test_a_run_is_complete_with_its_report(tmp_path: Path, sealed: Make) -> None:
    assert not is_complete(finished(tmp_path, sealed, "20260101-000000-0000", "load", "tune"))
    assert is_complete(finished(tmp_path, sealed, "20260102-000000-0000", "load", "report"))


def test_newest_passes_over_runs_that_never_finished_the_stage(tmp_path: Path, sealed: Make) -> None:
    finished(tmp_path, sealed, "20260101-000000-0000", "load")
    finished(tmp_path, sealed, "20260102-000000-0000", "load")
    unfinished = finished(tmp_path, sealed, "20260103-000000-0000")
    (unfinished / "load").mkdir()

    assert "20260102-000000-0000" == newest(tmp_path, "tiny", "load").run


def test_newest_of_nothing_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no finished wrap of tiny .* nox -s wrap -- model=tiny"):
        newest(tmp_path, "tiny", "wrap")


def test_latest_is_a_relative_link_that_moves_to_each_completed_run(tmp_path: Path, sealed: Make) -> None:
    for name in ("20260101-000000-0000", "20260102-000000-0000"):
        run = finished(tmp_path, sealed, name, "report")

        complete(run, keep_runs=10)

        assert Path(name) == (tmp_path / "tiny" / "latest").readlink()
    assert 2 == len(runs(tmp_path, "tiny"))
    assert {"20260101-000000-0000", "20260102-000000-0000", "latest"} == {path.name for path in (tmp_path / "tiny").iterdir()}


def test_an_adopted_stage_is_a_relative_link_and_survives_a_move(tmp_path: Path, sealed: Make) -> None:
    lender = finished(tmp_path / "a", sealed, "20260101-000000-0000", "load")
    borrower = finished(tmp_path / "a", sealed, "20260102-000000-0000")

    adopt(borrower, read_manifest(lender / "load"))
    adopt(borrower, read_manifest(lender / "load"))
    (tmp_path / "a").rename(tmp_path / "b")

    moved = tmp_path / "b" / "tiny" / borrower.name / "load"
    verify(read_manifest(moved))
    assert Path("..", lender.name, "load") == moved.readlink()
    assert lender.name == read_manifest(moved).run


def test_the_oldest_runs_beyond_keep_runs_go(tmp_path: Path, sealed: Make) -> None:
    names = [f"2026010{day}-000000-0000" for day in range(1, 6)]
    last = [finished(tmp_path, sealed, name, "report") for name in names][-1]

    complete(last, keep_runs=2)

    assert names[-2:] == [run.name for run in runs(tmp_path, "tiny")]


def test_a_run_that_a_kept_one_took_stages_from_is_kept(tmp_path: Path, sealed: Make) -> None:
    lender = finished(tmp_path, sealed, "20260101-000000-0000", "load", "report")
    finished(tmp_path, sealed, "20260102-000000-0000", "report")
    last = finished(tmp_path, sealed, "20260103-000000-0000", "report")
    adopt(last, read_manifest(lender / "load"))

    complete(last, keep_runs=1)

    assert [lender.name, last.name] == [run.name for run in runs(tmp_path, "tiny")]
    verify(read_manifest(last / "load"))


def test_unfinished_runs_stay_while_younger_than_the_oldest_kept_one(tmp_path: Path, sealed: Make) -> None:
    finished(tmp_path, sealed, "20260101-000000-0000", "load")
    first = finished(tmp_path, sealed, "20260102-000000-0000", "report")
    between = finished(tmp_path, sealed, "20260103-000000-0000", "load")
    last = finished(tmp_path, sealed, "20260104-000000-0000", "report")
    going_on = finished(tmp_path, sealed, "20260105-000000-0000", "load")

    complete(last, keep_runs=2)
    assert [first, between, last, going_on] == runs(tmp_path, "tiny")

    complete(last, keep_runs=1)
    assert [last, going_on] == runs(tmp_path, "tiny")


def test_other_models_keep_their_runs(tmp_path: Path, sealed: Make) -> None:
    other = tmp_path / "other" / "20250101-000000-0000"
    other.mkdir(parents=True)

    complete(finished(tmp_path, sealed, "20260101-000000-0000", "report"), keep_runs=1)

    assert [other] == runs(tmp_path, "other")


def test_the_accepted_run_is_kept_and_so_is_what_it_took_stages_from(tmp_path: Path, sealed: Make) -> None:
    names = [f"2026010{day}-000000-0000" for day in range(1, 6)]
    every = [finished(tmp_path, sealed, name, "load", "report") for name in names[:1]]
    every += [finished(tmp_path, sealed, name, "report") for name in names[1:]]
    adopt(every[1], read_manifest(every[0] / "load"))

    accept(every[1], "asked for")
    complete(every[-1], keep_runs=1)

    assert names[1] == accepted(tmp_path, "tiny")
    assert [names[0], names[1], names[-1]] == [run.name for run in runs(tmp_path, "tiny")]


def test_only_a_complete_run_is_accepted_and_the_newest_acceptance_counts(tmp_path: Path, sealed: Make) -> None:
    first, second = (finished(tmp_path, sealed, f"2026010{day}-000000-0000", "report") for day in (1, 2))
    unfinished = finished(tmp_path, sealed, "20260103-000000-0000", "load")

    assert accepted(tmp_path, "tiny") is None
    accept(second, "asked for")
    accept(first, "asked for")
    with pytest.raises(RequestError, match=r"20260103-000000-0000 is no complete run"):
        accept(unfinished, "asked for")

    assert first.name == accepted(tmp_path, "tiny")
    (first.parent / "accepted.json").write_text("{")
    with pytest.raises(RequestError, match=r"accepted.json is damaged .* accept=RUN"):
        accepted(tmp_path, "tiny")
