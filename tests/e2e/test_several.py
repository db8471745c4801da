"""Several models in one command: one that fails leaves the others alone."""

import re
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_one_index_has_a_line_for_each_model_and_the_exit_code_is_that_of_the_one_that_failed(
    sharing: Any, smoke: Any, quick: tuple[str, ...], tmp_path: Path
) -> None:
    """The second is wholly cached, so that only what is between the models takes time."""
    assert 0 == smoke.code, smoke.err
    (tmp_path / "no.pt").write_bytes(b"this is no graph")

    ran = sharing.run("pipelines", f"model=torchscript:{tmp_path}/no.pt,digits_cnn", *quick)

    assert 1 == ran.code
    assert "no.pt does not say" in ran.err
    assert re.search(r"^  torchscript_no_pt failed: ", ran.out, re.MULTILINE), ran.out
    assert re.search(r"^  digits_cnn   done in \d+ s$", ran.out, re.MULTILINE), ran.out
    page = sharing.artifacts / "index.html"
    assert str(page) in ran.out
    first, second = re.findall(r"<tr>(<td>.*?)</tr>", page.read_text(), re.DOTALL)
    assert "no.pt does not say" in first
    (link,) = re.findall(r'<a href="(.+?)">digits_cnn</a>', second)
    assert (page.parent / link).is_file()
    assert "requests/s" in second


def test_models_that_are_only_built_are_built_side_by_side(sharing: Any, smoke: Any) -> None:
    ran = sharing.run("pipelines", "model=digits_cnn,digits_sklearn", "profile=smoke", "until=load")

    assert (0, "") == (ran.code, ran.err)
    assert {"digits_cnn", "digits_sklearn"} == set(re.findall(r"^  (\w+) +done in", ran.out, re.MULTILINE))
    assert not re.search("index.html", ran.out)
