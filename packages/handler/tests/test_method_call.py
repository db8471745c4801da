"""A method of the model in place of its forward, with parameters of each request's own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marline.handler import FakeContext

Open = Callable[..., Any]

HANDLER = """
import torch
from base_handler import handler_factory

def preprocess(data):
    numbers = torch.tensor([float(one) for one in data.split()]) if isinstance(data, str) else data
    return {"numbers": numbers, "beside": torch.ones(len(numbers))}

def postprocess(output, sample):
    return [output.tolist(), len(sample["numbers"])]

handler = handler_factory({}, preprocess, postprocess)
"""
SECTION = {
    "method": "repeat",
    "parameters": {"times": 2, "scale": 1.5, "flip": False, "word": "a", "none": None},
    "most": {"times": 5, "scale": 10},
}


class Repeating(torch.nn.Module):
    """Answers differ with the shape of what comes in: padding would be seen."""

    def forward(self, numbers: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        return numbers + beside

    @torch.jit.export
    def repeat(self, numbers: torch.Tensor, times: int, scale: float, flip: bool, word: str, none: int | None) -> torch.Tensor:
        """Each number, the row's mean and the batch's size, `times` times."""
        if word == "5" or none is not None:
            numbers = numbers + 100
        seen = torch.cat([numbers, numbers.mean(1, keepdim=True), numbers[:, :1] * 0 + numbers.shape[0]], 1) * scale
        seen = seen.repeat(1, times)
        return seen.flip([1]) if flip else seen


@pytest.fixture
def repeating(own: Open, tmp_path: Path) -> Any:
    instance = own(HANDLER.replace("{}", "None"))
    torch.jit.script(Repeating()).save(str(tmp_path / "archive" / "model.pt"))  # type: ignore[no-untyped-call]
    context = FakeContext(tmp_path / "archive", "model.pt", model_yaml_config={"handler": SECTION})
    instance.initialize(context)
    return instance


def send(instance: Any, *requests: dict[str, Any]) -> tuple[list[Any], FakeContext]:
    context = FakeContext(Path())
    return [json.loads(text) for text in instance.handle(requests, context)], context


def said(**parameters: Any) -> dict[str, Any]:
    return {"body": {"data": [1.0, 3.0], "parameters": parameters}}


ROW = [1.5, 4.5, 3.0, 1.5]  # 1, 3, their mean, one sample; times 1.5


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"body": b"1 3"}, ROW * 2),
        (said(), ROW * 2),
        (said(times=1), ROW),
        (said(times=3), ROW * 3),
        (said(scale=3, times=1), [3.0, 9.0, 6.0, 3.0]),
        (said(flip=True, times=1), ROW[::-1]),
        ({"body": {"data": [1.0, 3.0], "times": 1}}, ROW),
        ({"data": b"1 3", "times": b"1"}, ROW),
        ({"data": b"1 3", "times": bytearray(b"1"), "flip": "true"}, ROW[::-1]),
        ({"body": b"1 3", "times": "1"}, ROW),
        ({"data": b"1 3", "parameters": b'{"times": 1}'}, ROW),
        ({"data": b"1 3", "times": b"1", "word": b"5"}, [151.5, 154.5, 153.0, 1.5]),
        ({"body": b"1 3", "times": "1", "model_name": "any"}, ROW),
    ],
    ids=[
        *("no JSON", "defaults", "one", "another", "a whole number for a fraction", "truth", "beside the data"),
        *("form", "form in two kinds", "query", "a form's object", "a form's text of digits", "the query of /invocations"),
    ],
)
def test_parameters_come_with_the_request_in_every_form(repeating: Any, request_: dict[str, Any], expected: Any) -> None:
    answers, context = send(repeating, request_)

    assert {} == context.statuses, answers
    assert [pytest.approx(expected), 2] == answers[0]["output"]


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"tims": 1}, "unknown parameter 'tims'; known are times, scale, flip, word, none"),
        ({"times": 6}, "times=6 is more than 5"),
        ({"scale": 11}, "scale=11 is more than 10"),
        ({"times": 1.0}, "times=1.0: expected int, as in times=2"),
        ({"times": "1"}, "times='1': expected int"),
        ({"times": True}, "times=True: expected int"),
        ({"times": None}, "times=None: expected int"),
        ({"times": [1]}, "times=[1]: expected int"),
        ({"flip": 1}, "flip=1: expected bool"),
        ({"scale": float("nan")}, "scale=nan: expected a number"),
        ({"scale": float("-inf")}, "scale=-inf: expected a number"),
        ({"scale": 10**400}, "scale=1000"),
        ({"times": -(10**30)}, "times=-1000000000000000000000000000000: expected a number"),
        ({"word": 5}, "word=5: expected str"),
        ({"none": 3}, "none=3: expected NoneType"),
        ({"x" * 10_000: 1}, "unknown parameter 'xxx"),
        ({"times": "y" * 10_000}, "times='yyy"),
    ],
)
def test_a_wrong_parameter_is_refused_briefly_and_its_neighbours_answered(
    repeating: Any, told: dict[str, Any], message: str
) -> None:
    answers, context = send(repeating, said(times=1), said(**told), said(times=1))

    assert {1: (400, "Bad Request")} == context.statuses
    assert answers[1]["message"].startswith(message)
    assert len(answers[1]["message"]) < 300
    assert "output" in answers[0]
    assert answers[0] == answers[2]


def test_parameters_that_are_no_object_are_refused(repeating: Any) -> None:
    answers, _ = send(repeating, {"body": {"data": [1.0], "parameters": [1]}})

    assert (400, "`parameters` is no JSON object") == (answers[0]["code"], answers[0]["message"])


def test_a_batch_of_different_lengths_and_parameters_equals_the_single_answers(repeating: Any) -> None:
    """What is alike in both is one call: the last number but the scale is the size of the batch."""
    bodies = [(b"1 2", 1), (b"1 2 3", 1), (b"5 6", 1), (b"7 8", 2), (b"4", 1), (b"9 9 9", 1)]
    requests = [{"data": text, "times": str(times).encode()} for text, times in bodies]

    together, context = send(repeating, *requests)
    alone = [send(repeating, request)[0][0]["output"] for request in requests]

    assert {} == context.statuses
    assert [2, 2, 2, 1, 1, 2] == [answer["output"][0][-1] / 1.5 for answer in together]
    for size, one, many in zip([2, 2, 2, 1, 1, 2], alone, together, strict=True):
        counted = [value for index, value in enumerate(many["output"][0]) if (index + 1) % (many["output"][1] + 2)]
        single = [value for index, value in enumerate(one[0]) if (index + 1) % (one[1] + 2)]
        assert (single, one[1]) == (counted, many["output"][1]), size


def test_a_method_the_model_has_not_ends_the_deployment(own: Open, tmp_path: Path) -> None:
    instance = own(HANDLER.replace("{}", "torch.nn.Identity"))

    with pytest.raises(AttributeError, match=r"handler\.method='chat' in the model config: the model has no such method"):
        instance.initialize(FakeContext(tmp_path / "archive", model_yaml_config={"handler": {"method": "chat"}}))


EAGER = """
import torch
from base_handler import handler_factory

class Net(torch.nn.Module):
    def add(self, numbers, more=0):
        return numbers + more

Net.__module__ = "elsewhere"
handler = handler_factory(Net, preprocess_function=lambda data: {"ignored": torch.zeros(5), "numbers": data})
del Net
"""


def test_a_method_of_an_eager_model_gets_the_tensors_it_has_arguments_for(own: Open, tmp_path: Path) -> None:
    instance = own(EAGER)
    section = {"method": "add", "parameters": {"more": 1}}
    instance.initialize(FakeContext(tmp_path / "archive", model_yaml_config={"handler": section}))

    answers, _ = send(instance, {"body": [1.0, 2.0]}, {"body": {"data": [1.0], "parameters": {"more": 2}}})

    assert [[2.0, 3.0], [3.0]] == [answer["output"] for answer in answers]
