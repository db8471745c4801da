"""Functions that see a whole batch, where one sample at a time is too slow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marline.handler import FakeContext

Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]
BATCHED = """
import torch
from base_handler import BadRequestError, handler_factory
from ts.utils.util import PredictionException

CALLS = []

def preprocess(data):
    if data == "early":
        raise BadRequestError("refused early")
    return data

def before(values):
    CALLS.append(["before", len(values)])
    if any(value == "refuse" for value in values):
        raise BadRequestError("one of them is refused")
    if any(value == "513" for value in values):
        raise PredictionException("a code of its own", 513)
    return [torch.tensor([float(value)]) for value in values]

def after(outputs):
    CALLS.append(["after", len(outputs)])
    if any(output.item() == 13 for output in outputs):
        raise ArithmeticError
    return [output.item() + 0.5 for output in outputs]

handler = handler_factory(torch.nn.Identity, preprocess, preprocess_batch_function=before, postprocess_batch_function=after)
"""


@pytest.fixture
def batched(own: Open, tmp_path: Path) -> Any:
    instance = own(BATCHED)
    instance.initialize(FakeContext(tmp_path / "archive"))
    return instance


def calls(instance: Any) -> list[Any]:
    found: list[Any] = vars(__import__("sys").modules[type(instance).__module__])["CALLS"]
    return found


def test_each_is_called_once_for_a_batch(batched: Any, ask: Ask) -> None:
    answers, _ = ask(batched, b"1", b"2", b"3")

    assert [1.5, 2.5, 3.5] == [answer["output"] for answer in answers]
    assert [["before", 3], ["after", 3]] == calls(batched)


def test_the_one_they_refuse_is_refused_alone(batched: Any, ask: Ask) -> None:
    answers, context = ask(batched, b"1", b"refuse", b"early", b"513", b"13", b"2")

    assert {1: 400, 2: 400, 3: 513, 4: 500} == {index: code for index, (code, _) in context.statuses.items()}
    assert [{"output": 1.5}, {"output": 2.5}] == [answers[0], answers[5]]
    assert ["one of them is refused", "refused early", "a code of its own"] == [one["message"] for one in answers[1:4]]
    assert ["before", 5] == calls(batched)[0]  # all that were left, before each was tried alone


COUNTS = """
import torch
from base_handler import handler_factory
handler = handler_factory(torch.nn.Identity, {}=lambda values: values[:1] if len(values) > 2 else values[1:])
"""


@pytest.mark.parametrize("word", ["preprocess_batch_function", "postprocess_batch_function"])
def test_a_function_that_returns_another_number_of_values_answers_nobody_with_anothers(
    own: Open, ask: Ask, tmp_path: Path, word: str
) -> None:
    instance = own(COUNTS.format(word))
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, context = ask(instance, [1.0], [2.0], [3.0])

    assert [500, 500, 500] == [code for code, _ in context.statuses.values()]
    assert ["ValueError in the handler"] * 3 == [answer["message"] for answer in answers]


CODES = """
import torch
from base_handler import handler_factory
from ts.utils.util import PredictionException

def preprocess(data):
    if data.item() == 1:
        raise PredictionException("before \u2713", 513)
    return data

def postprocess(output):
    if output.item() == 2:
        raise PredictionException("after", 514)
    return output.item()

handler = handler_factory(torch.nn.Identity, preprocess, postprocess)
"""


def test_a_code_of_ones_own_is_that_samples_alone(own: Open, ask: Ask, tmp_path: Path) -> None:
    instance = own(CODES)
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, context = ask(instance, [1.0], [2.0], [3.0])

    assert {0: (513, "Prediction Error"), 1: (514, "Prediction Error")} == context.statuses  # a phrase is ASCII, or it breaks
    assert ["before \u2713", "after"] == [answer["message"] for answer in answers[:2]]
    assert {"output": 3.0} == answers[2]


MEMORY = """
import weakref
import torch
from base_handler import handler_factory
KEPT = []

def preprocess(data):
    large = torch.zeros(3)
    KEPT.append(weakref.ref(large))
    try:
        raise KeyError("first")
    except KeyError:
        raise RuntimeError("second")

handler = handler_factory(torch.nn.Identity, preprocess)
"""


def test_what_failed_is_told_but_the_request_is_let_go(own: Open, ask: Ask, tmp_path: Path) -> None:
    instance = own(MEMORY)
    instance.initialize(FakeContext(tmp_path / "archive"))

    ask(instance, [1.0])

    (kept,) = vars(__import__("sys").modules[type(instance).__module__])["KEPT"]
    assert "second" == str(instance.error)
    assert kept() is None


THREADS = """
import threading
import time
import torch
from base_handler import BadRequestError, handler_factory
SEEN = set()

def preprocess(data):
    SEEN.add(threading.get_ident())
    time.sleep(0.02 if data[0] < 4 else 0)
    if data[0] == 3:
        raise BadRequestError("three is refused")
    if data[0] == 5:
        raise RuntimeError
    return data

handler = handler_factory(torch.nn.Identity, preprocess, preprocess_in_threads={})
"""


def test_threads_change_neither_answers_nor_their_order_nor_whose_an_error_is(own: Open, ask: Ask, tmp_path: Path) -> None:
    instance = own(THREADS.format(True))
    instance.initialize(FakeContext(tmp_path / "archive"))
    bodies, threads = [[float(number)] for number in range(8)], torch.get_num_threads()

    answers, context = ask(instance, *bodies)

    assert {3: 400, 5: 500} == {index: code for index, (code, _) in context.statuses.items()}
    assert [[0.0], [1.0], [2.0], [4.0], [6.0], [7.0]] == [answer["output"] for answer in answers if "output" in answer]
    assert "three is refused" == answers[3]["message"]
    assert threads == torch.get_num_threads()
    if instance.pool is not None:  # as with one core alone
        instance.pool.shutdown()
