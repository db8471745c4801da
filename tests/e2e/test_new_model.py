import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

PARTS = ("configs", "models", "loadtests", "pipelines")


@pytest.fixture
def elsewhere(sharing: Any, tmp_path: Path) -> Any:
    """A copy of the project's folders, so that a new model does not land in the project."""
    root = tmp_path / "project"
    for name in PARTS:
        shutil.copytree(sharing.root / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return replace(sharing, root=root, artifacts=tmp_path / "artifacts")


KINDS = {
    "torch": [],
    "hf": ["kind=hf", "base=bert"],  # plain kind=hf has its tests in tests/test_new_model.py
}


@pytest.mark.parametrize("words", KINDS.values(), ids=KINDS)
def test_a_skeleton_runs_untouched_up_to_a_served_archive(elsewhere: Any, words: list[str], quick: tuple[str, ...]) -> None:
    made = elsewhere.run("pipelines.new_model", "name=lamp", *words)
    ran = elsewhere.run("pipelines", "model=lamp", *quick, "until=deploy")

    assert (0, "") == (made.code, made.err)
    assert (0, "") == (ran.code, ran.err)
    assert "golden pairs equal over HTTP" in ran.out
    taken = elsewhere.run("pipelines.new_model", "name=lamp")
    assert 2 == taken.code
    assert "name=lamp is taken" in taken.err


@pytest.mark.parametrize("words", [["name=Two Words"], ["lamp"], []])
def test_a_name_that_is_none_is_refused_with_an_example(elsewhere: Any, words: list[str]) -> None:
    refused = elsewhere.run("pipelines.new_model", *words)

    assert (2, "") == (refused.code, refused.out)
    assert "name=my_model" in refused.err
