"""The Open Inference Protocol as the frontend passes it on: from REST as it was sent, from gRPC with the model's name in it."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marline.handler import FakeContext

Open = Callable[..., Any]
SIX = (Path(__file__).parents[3] / "models" / "digits_cnn" / "samples" / "0_is_6.png").read_bytes()
NUMBERS = {"name": "x", "shape": [3], "datatype": "FP32", "data": [1, 2.5, -3]}
TEXT = {"name": "x", "shape": [1], "datatype": "BYTES", "data": ["a text"]}
IMAGE = {**TEXT, "data": [base64.b64encode(SIX).decode()]}
SAYS = """
from base_handler import handler_factory
import torch

def preprocess(value):
    if isinstance(value, str):
        raise ValueError(value)
    return value

handler = handler_factory(torch.nn.Identity, preprocess_function=preprocess, postprocess_function={post})
"""


class Named(FakeContext):
    """A context that knows the model's name and version."""

    @property
    def manifest(self) -> dict[str, Any]:
        return {"model": {"modelName": "m", "modelVersion": "2.0"}}


@pytest.fixture
def ask(own: Open, tmp_path: Path) -> Callable[..., list[Any]]:
    """Answers of a handler around a network that changes nothing, with a postprocess function; one request is one body."""
    made: dict[str, Any] = {}

    def answers(*bodies: Any, post: str = "lambda row: row") -> list[Any]:
        if not made:
            made["handler"] = own(SAYS.format(post=post))
            made["handler"].initialize(FakeContext(tmp_path / "archive"))
        context = Named(tmp_path / "archive")
        found = [json.loads(answer) for answer in made["handler"].handle([{"body": body} for body in bodies], context)]
        codes = [context.statuses.get(index, (200,))[0] for index in range(len(bodies))]
        return list(zip(codes, found, strict=True))

    return answers


def outputs(**named: Any) -> list[dict[str, Any]]:
    return [{"name": name, **dict(zip(("shape", "datatype", "data"), told, strict=True))} for name, told in named.items()]


def test_an_answer_has_the_request_s_id_and_its_outputs_as_tensors(ask: Any) -> None:
    ((code, answer),) = ask({"id": "7", "inputs": [NUMBERS]})

    assert 200 == code
    assert {
        "id": "7",
        "model_name": "m",
        "model_version": "2.0",
        "outputs": outputs(output=([3], "FP64", [1.0, 2.5, -3.0])),
    } == answer


@pytest.mark.parametrize(
    ("post", "expected"),
    [
        ("lambda row: row.view(1, 3)", outputs(output=([1, 3], "FP64", [1.0, 2.5, -3.0]))),
        ("lambda row: 4", outputs(output=([1], "INT64", [4]))),
        ("lambda row: [True, False]", outputs(output=([2], "BOOL", [True, False]))),
        ("lambda row: []", outputs(output=([0], "FP64", []))),
        ("lambda row: 'six'", outputs(output=([1], "BYTES", ["six"]))),
        ("lambda row: {'digit': 6, 'p': 0.5}", outputs(digit=([1], "INT64", [6]), p=([1], "FP64", [0.5]))),
        ("lambda row: [{'label': 'cat'}]", outputs(output=([1], "BYTES", ['[{"label": "cat"}]']))),
        ("lambda row: [[1, 2], [3]]", outputs(output=([1], "BYTES", ["[[1, 2], [3]]"]))),
        ("lambda row: None", outputs(output=([1], "BYTES", ["null"]))),
    ],
)
def test_whatever_a_model_answers_is_an_output(ask: Any, post: str, expected: list[dict[str, Any]]) -> None:
    ((code, answer),) = ask({"inputs": [NUMBERS]}, post=post)

    assert (200, expected) == (code, answer["outputs"])


def test_integers_truths_and_nested_data_arrive_as_what_they_are(digits: Any, ask: Any) -> None:
    nested = {"name": "x", "shape": [2, 2], "datatype": "INT64", "data": [[1, 2], [3, 4]]}
    truths = {"name": "x", "shape": [4], "datatype": "BOOL", "data": [True, False, True, True]}

    replies = ask({"inputs": [nested]}, {"inputs": [truths]})

    assert [([2, 2], "INT64", [1, 2, 3, 4]), ([4], "BOOL", [True, False, True, True])] == [
        tuple(answer["outputs"][0][key] for key in ("shape", "datatype", "data")) for _, answer in replies
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"model_name": "m", "id": "", "inputs": [IMAGE]},
        {"inputs": [{**IMAGE, "parameters": {"content_type": "base64"}}]},
    ],
)
def test_bytes_in_base64_are_a_body_of_their_own(digits: Any, body: Any) -> None:
    context = Named(Path())

    answer = json.loads(digits.handle([{"body": body}], context)[0])

    assert {"digit": 6}.items() <= {one["name"]: one["data"][0] for one in answer["outputs"]}.items()


def test_a_neighbour_in_another_format_is_answered_in_its_own(ask: Any) -> None:
    (_, opened), (_, plain) = ask({"inputs": [NUMBERS]}, [1.0, 2.5, -3.0])

    assert {"output": [1.0, 2.5, -3.0]} == plain
    assert plain["output"] == opened["outputs"][0]["data"]


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"shape": [4]}, "3 numbers for the shape [4]"),
        ({"shape": [-3]}, "no shape: [-3]"),
        ({"shape": "3"}, "no shape: 3"),
        ({"datatype": "COMPLEX"}, "datatype COMPLEX; known are BYTES, BOOL"),
        ({"datatype": ["FP32"]}, "datatype ['FP32']; known"),
        ({"data": ["a", "b", "c"]}, "input x: "),
        ({"data": [[1], [2, 3]]}, "input x: "),
        ({"data": None}, "input x: "),
        ({"data": [1, 2, float("inf")]}, "NaN, Infinity"),
        ({"datatype": "INT8", "data": [1, 2, 3000]}, "input x: "),
        ({"datatype": "BYTES", "data": ["a", "b"]}, "BYTES hold one text"),
        ({"datatype": "BYTES", "data": ["half \ud83d"]}, "half a character"),
    ],
)
def test_an_input_that_is_not_what_it_says_is_a_refusal_that_rest_and_grpc_can_carry(
    ask: Any, told: dict[str, Any], why: str
) -> None:
    ((code, answer), (_, good)) = ask({"id": "9", "inputs": [{**NUMBERS, **told}]}, {"inputs": [NUMBERS]})

    (output,) = answer["outputs"]
    assert (400, "9", "error") == (code, answer["id"], output["name"])
    assert why in answer["error"]
    assert {"code": 400, "type": "BadRequest", "message": answer["error"]} == json.loads(output["data"][0])
    assert [1.0, 2.5, -3.0] == good["outputs"][0]["data"]


def test_a_part_that_is_missing_and_no_inputs_from_grpc_are_refused(ask: Any) -> None:
    half = {"name": "x", "datatype": "FP32"}

    replies = ask({"inputs": [half]}, {"model_name": "m", "id": "", "inputs": []}, {"inputs": [NUMBERS, NUMBERS]})

    assert [
        (400, "an input has no data, shape"),
        (400, "there are no inputs"),
        (400, "two inputs have the same name"),
    ] == [(code, answer["error"]) for code, answer in replies]


def test_what_the_model_s_own_function_raises_is_told_in_this_protocol_too(ask: Any) -> None:
    ((code, answer),) = ask({"inputs": [TEXT]})

    assert (500, "ValueError in the handler", "error") == (code, answer["error"], answer["outputs"][0]["name"])


def test_json_with_inputs_of_its_own_is_not_this_protocol(ask: Any) -> None:
    ((code, answer),) = ask({"inputs": "a text"})

    assert (400, {"code", "type", "message"}) == (code, set(answer))


def test_several_inputs_are_named_tensors_and_parameters_are_read(own: Open, tmp_path: Path) -> None:
    handler = own("""
import torch
from base_handler import handler_factory

def init_function():
    class Scales(torch.nn.Module):
        def forward(self, a, b):
            return a + b
        def scaled(self, a, b, factor: int = 1):
            return (a - b) * factor
    return Scales()

handler = handler_factory(init_function)
""")
    section = {"method": "scaled", "parameters": {"factor": 1}}
    handler.initialize(FakeContext(tmp_path / "archive", model_yaml_config={"handler": section}))
    inputs = [{**NUMBERS, "name": "b"}, {**NUMBERS, "name": "a", "data": [1, 1, 1]}]

    (text,) = handler.handle([{"body": {"inputs": inputs, "parameters": {"factor": 3}}}], Named(tmp_path / "archive"))

    assert [0.0, -4.5, 12.0] == json.loads(text)["outputs"][0]["data"]


def test_a_field_says_the_content_type_where_a_header_cannot(own: Open, tmp_path: Path) -> None:
    handler = own("import torch\nfrom base_handler import handler_factory\nhandler = handler_factory(torch.nn.Identity)\n")
    handler.initialize(FakeContext(tmp_path / "archive"))
    context = FakeContext(tmp_path / "archive")

    as_json, as_text = handler.handle(
        [{"data": b"[1, 2]", "content-type": bytearray(b"application/json")}, {"data": b"[1, 2]"}], context
    )

    assert {"output": [1.0, 2.0]} == json.loads(as_json)
    assert ({1: (400, "Bad Request")}, "got str") == (context.statuses, json.loads(as_text)["message"][-7:])
    assert torch.equal(handler.sample({"data": [1, 2]}), torch.tensor([1.0, 2.0]))
