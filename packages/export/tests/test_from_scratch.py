"""Of a handler from scratch golden pairs are kept, and it is said that nothing else was."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from marline.core import ExportConfig, Manifest, ParityError, RequestError, seal
from marline.export import export
from marline.handler import read_golden

HANDLER = """
import random

class Shout:
    def initialize(self, context):
        self.said = 0

    def handle(self, data, context):
        self.said += 1
        return [{answer} for one in data]
"""
Scratch = Callable[..., Manifest]


@pytest.fixture
def scratch(tmp_path: Path, quick: Callable[..., ExportConfig]) -> Scratch:
    """Export a handler from scratch whose answer to `one` of `data` is given as an expression."""

    def make(answer: str = "one['body'].upper()", texts: tuple[str, ...] = ("hi", "ho", "hm"), **changed: object) -> Manifest:
        for folder in ("load/sample", "wrap/repository", "export", "source"):
            (tmp_path / folder).mkdir(parents=True)
        for text in texts:
            (tmp_path / "load" / "sample" / f"{text}.txt").write_text(f'"{text}"')
        (tmp_path / "wrap" / "repository" / "config.json").write_text("{}")
        (tmp_path / "source" / "shout.py").write_text(HANDLER.replace("{answer}", answer))
        config, facts = quick(**changed), {"kind": "handler"}
        loaded, wrapped = (
            seal(tmp_path / stage, model="shout", config=config, inputs=[], facts=facts, started=time.monotonic())
            for stage in ("load", "wrap")
        )
        return export("shout", config, loaded, wrapped, tmp_path / "source" / "shout.py", tmp_path / "export")

    return make


def test_golden_pairs_are_what_the_handler_answers_and_nothing_is_claimed(scratch: Scratch) -> None:
    manifest = scratch()

    assert {"golden.json", "parity.json"} == set(manifest.outputs)
    assert {"hi.txt": "HI", "hm.txt": "HM", "ho.txt": "HO"} == {
        pair.name: pair.answer for pair in read_golden(manifest.path("golden.json"))
    }
    facts = manifest.facts
    assert ("none", 3, [], {"body": ["text/plain"]}) == tuple(facts[key] for key in ("method", "golden", "parity", "input"))
    assert "nothing was compared with an eager model" in facts["reason"]
    assert [facts["reason"]] == facts["warnings"]
    assert [] == json.loads(manifest.path("parity.json").read_text())["rows"]


def test_one_sample_says_nothing_about_neighbours(scratch: Scratch) -> None:
    assert "whether neighbours in a batch change an answer" in scratch(texts=("hi",)).facts["skipped"][0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("random.random()", r"golden pair hi\.txt, asked twice: answer: expected 0\.\d+, got 0\.\d+"),
        ("self.said", r"golden pair hi\.txt, asked twice: answer: expected 1, got 4"),
        ("len(data)", r"golden pair hi\.txt, alone against in a batch with others: answer: expected 1, got 3"),
    ],
)
def test_answers_that_change_are_refused(scratch: Scratch, tmp_path: Path, answer: str, message: str) -> None:
    with pytest.raises(ParityError, match=message):
        scratch(answer)
    assert [] == [*(tmp_path / "export").iterdir()]


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"method": "script"}, r"export\.method=script"),
        ({"fold": True, "dtype": "float16"}, r"export\.dtype, export\.fold"),
        ({"preserve": ("generate",), "random": True}, r"export\.preserve, export\.random"),
    ],
)
def test_what_only_a_graph_can_have_is_refused(scratch: Scratch, changed: dict[str, object], named: str) -> None:
    with pytest.raises(RequestError, match=rf"{named}: there is no module to make a graph of"):
        scratch(**changed)
