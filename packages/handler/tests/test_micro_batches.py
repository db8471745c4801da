"""A batch in parts: the model begins with the first while the others are still preprocessed."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marline.handler import FakeContext

Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]
PARTS = """
import threading
import torch
from base_handler import handler_factory

SIZES, BEGUN = [], threading.Event()

def doubles(model, arguments, output):
    SIZES.append(len(output))
    BEGUN.set()
    return 2 * output

def init():
    model = torch.nn.Identity()
    model.register_forward_hook(doubles)
    return model

def preprocess(data):
    if data.item() == 7:  # comes when the model has begun with others
        assert BEGUN.wait(10), "the model waited for the last sample"
    return 100 / (data - 3).item() * 0 + data

handler = handler_factory(init, preprocess, preprocess_in_threads=True)
"""


@pytest.fixture
def parts(own: Open, tmp_path: Path) -> Callable[[int], Any]:
    """The handler above, with this `micro_batch_size`."""

    def make(size: int) -> Any:
        instance = own(PARTS)
        instance.initialize(FakeContext(tmp_path / "archive", model_yaml_config={"handler": {"micro_batch_size": size}}))
        return instance

    return make


def sizes(instance: Any) -> list[int]:
    found: list[int] = vars(__import__("sys").modules[type(instance).__module__])["SIZES"]
    return found


@pytest.mark.parametrize("threads", [1, 2])
def test_the_model_begins_before_the_last_sample_is_there(parts: Callable[[int], Any], ask: Ask, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    instance = parts(2)
    torch.set_num_threads(before)

    answers, context = ask(instance, [1], [2], [4], [5], [7])

    assert ([[2], [4], [8], [10], [14]], {}) == ([answer["output"] for answer in answers], context.statuses)
    assert [2, 2, 1] == sizes(instance)


def test_a_bad_sample_is_refused_alone_in_any_part(parts: Callable[[int], Any], ask: Ask) -> None:
    answers, context = ask(parts(2), [1], b"", [3], [4], [5])

    assert {1: 400, 2: 500} == {index: code for index, (code, _) in context.statuses.items()}
    assert [[2], [8], [10]] == [answers[index]["output"] for index in (0, 3, 4)]


def test_the_times_of_a_batch_in_parts_add_up(
    parts: Callable[[int], Any], ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARLINE_BATCH_LOG", str(tmp_path))
    instance = parts(1)

    began = time.monotonic()
    ask(instance, [1], [2], [4])
    whole_ms = 1e3 * (time.monotonic() - began)
    instance.facts.log.close()

    (line,) = next(tmp_path.glob("*.csv")).read_text().splitlines()
    _, size, *stages = json.loads(f"[{line}]")
    assert 3 == size
    assert all(stage >= 0 for stage in stages)
    assert sum(stages) <= whole_ms
