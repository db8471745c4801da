"""Handlers from scratch, outside a server: models/digits_sklearn, and small ones of each shape that TorchServe takes."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from marline.core import RequestError, StageError
from marline.handler import FakeContext, answering, assemble, beside, opened

ROOT = Path(__file__).parents[3]
SKLEARN = ROOT / "models" / "digits_sklearn" / "handler.py"
SAMPLES = sorted((ROOT / "models" / "digits_cnn" / "samples").iterdir())
FUNCTION = """
import json
from pathlib import Path

words = {}

def handle(data, context):
    if not data:
        words.update(json.loads(Path(context.system_properties["model_dir"], "words.json").read_text()))
        return None
    context.metrics.add_counter("Asked", len(data))
    return [{"kind": type(one["body"]).__name__, "word": words["hi"], "by": context.model_name} for one in data]
"""
CLASS = """
class Own:
    def initialize(self, context):
        {initialize}

    def handle(self, data, context):
        {handle}
"""
Place = Callable[..., Path]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Put a handler and files beside it into a folder of their own, assembled; gives the assembled folder."""

    def make(text: str, **beside_it: str) -> Path:
        for folder in ("source", "archive"):
            (tmp_path / folder).mkdir()
        (tmp_path / "source" / "own.py").write_text(text)
        for name, content in beside_it.items():
            (tmp_path / "source" / ".".join(name.rsplit("_", 1))).write_text(content)
        assemble(tmp_path / "source" / "own.py", tmp_path / "none", tmp_path / "archive")
        return tmp_path / "archive"

    return make


@pytest.fixture
def requests(tmp_path: Path) -> list[Path]:
    """One request of each kind that TorchServe hands on differently."""
    contents = {"a.json": b'{"x": [1]}', "b.png": b"\x89PNG", "c.txt": b"hi"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def test_a_function_gets_what_torchserve_would_give_it(place: Place, requests: list[Path]) -> None:
    folder = place(FUNCTION, words_json='{"hi": "hello"}')

    with answering(folder, "own", "greeter") as ask:
        answers = ask(requests)

    assert ["dict", "bytearray", "str"] == [answer["kind"] for answer in answers]
    assert {("hello", "greeter")} == {(answer["word"], answer["by"]) for answer in answers}
    assert "own" not in sys.modules


def test_files_that_the_code_names_come_along_and_no_others(place: Place, tmp_path: Path) -> None:
    folder = place(FUNCTION, words_json="{}", secrets_json="{}", notes_txt="words", test_own_py="", helper_py="")

    assert {"own.py", "helper.py", "words.json"} == {file.name for file in folder.iterdir()}
    assert folder.parent / "source" / "words.json" in beside(tmp_path / "source" / "own.py")


def test_the_shared_base_comes_along_where_it_is_imported(place: Place) -> None:
    folder = place("import torch\nfrom base_handler import handler_factory\n\nhandler = handler_factory(torch.nn.Identity)\n")

    assert {"base_handler.py", "request_decoding.py", "collation.py"} <= {file.name for file in folder.iterdir()}


def test_a_handler_of_the_factory_may_bring_its_model_itself(place: Place, tmp_path: Path) -> None:
    folder = place("import torch\nfrom base_handler import handler_factory\n\nhandler = handler_factory(torch.nn.Identity)\n")
    (tmp_path / "list.json").write_text("[1, 2]")

    with answering(folder, "own", "identity") as ask:
        assert [{"output": [1.0, 2.0]}] == ask([tmp_path / "list.json"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def other(data, context): ...\n", r"own\.py defines no handler: no function `handle`, and none of its 0 classes has"),
        (
            "class A: ...\nclass B: ...\n",
            r"none of its 2 classes has such a method; write one with `initialize` and `handle`, or",
        ),
        ("class A:\n    def handle(self, data, context): ...\n", r"the class A in own\.py has no initialize, which TorchServe"),
    ],
)
def test_a_file_without_a_handler_is_a_wrong_request(place: Place, text: str, message: str) -> None:
    folder = place(text)

    with pytest.raises(RequestError, match=message), answering(folder, "own", "tiny"):
        raise AssertionError("it must not begin")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ({"initialize": "1 / 0"}, r"own\.py cannot load its model: ZeroDivisionError: division by zero"),
        ({"handle": "raise ValueError('never')"}, r"the sample a\.json gets no answer: ValueError: never"),
        ({"handle": "return [1, 2]"}, r"returned a list of 2 where TorchServe wants a list with one answer per request"),
        ({"handle": "return 'text'"}, r"returned str where TorchServe wants a list"),
        ({"handle": "return [b'\\xff\\xd8']"}, r"its answer is no JSON, which golden pairs are compared in"),
        ({"handle": "return [float('nan')]"}, r"its answer is no JSON"),
        ({"handle": "context.set_response_status(415, 'Odd', 0); return ['no']"}, r"gets no answer: 415 Odd: no"),
    ],
)
def test_a_handler_that_fails_is_named(place: Place, requests: list[Path], lines: dict[str, str], message: str) -> None:
    folder = place(CLASS.format(**{"initialize": "pass", "handle": "return ['1'] * len(data)", **lines}))

    with pytest.raises(StageError, match=message), answering(folder, "own", "tiny") as ask:
        ask(requests[:1])


def test_the_first_of_several_classes_that_can_handle_is_the_handler(place: Place, requests: list[Path]) -> None:
    helper, own = "class Problem(Exception): ...\n", CLASS.format(initialize="pass", handle="return ['1'] * len(data)")
    folder = place(helper + own + own.replace("Own", "Later").replace("'1'", "'2'"))

    with answering(folder, "own", "tiny") as ask:
        assert [1] == ask(requests[:1])


def asked(handler: Any, *bodies: bytes) -> tuple[list[Any], FakeContext]:
    context = FakeContext(Path())
    return handler.handle([{"body": bytearray(body)} for body in bodies], context), context


def test_digits_of_the_half_it_did_not_learn_are_read_right_by_a_forest_that_is_the_same_each_time(tmp_path: Path) -> None:
    data = load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    _, test, _, labels = train_test_split(pixels, data.target, test_size=0.5, random_state=0, stratify=data.target)
    bodies = []
    for image in test:
        Image.fromarray(image).save(body := io.BytesIO(), "PNG")
        bodies.append(body.getvalue())
    files = [file.name for file in assemble(SKLEARN, tmp_path / "none", tmp_path)]
    found = []
    for _ in range(2):
        with opened(tmp_path, "handler") as handler:
            handler.initialize(None)
            answers, context = asked(handler, *bodies)
            found.append([answer["output"] for answer in answers])

    assert ["handler.py"] == files
    assert ({}, 899) == (context.statuses, len(test))
    assert found[0] == found[1]
    right = sum(answer["digit"] == label for answer, label in zip(found[0], labels, strict=True))
    assert 0.976 == round(right / len(test), 3)


def test_a_bad_item_of_a_batch_gets_its_own_400_and_its_neighbours_their_digits(tmp_path: Path) -> None:
    image = SAMPLES[0].read_bytes()
    Image.new("L", (1001, 1001)).save(large := io.BytesIO(), "PNG")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(deep := io.BytesIO(), "PNG")
    Image.new("L", (8, 8)).save(gif := io.BytesIO(), "GIF")
    assemble(SKLEARN, tmp_path / "none", tmp_path)
    with opened(tmp_path, "handler") as handler:
        handler.initialize(None)
        bad = [b"", b"no image", image[:60], large.getvalue(), deep.getvalue(), gif.getvalue()]
        answers, context = asked(handler, image, *bad, image)
        text, told = handler.handle([{"body": "a text"}], alone := FakeContext(Path())), alone.statuses

    assert dict.fromkeys(range(1, 7), (400, "Bad Request")) == context.statuses
    assert {0: (400, "Bad Request")} == told
    assert "got str" in text[0]["message"]
    assert [int(SAMPLES[0].stem[-1])] * 2 == [answers[index]["output"]["digit"] for index in (0, 7)]
    said = json.dumps(answers)
    assert "1001 x 1001 pixels; 1000000 are allowed" in said
    assert "16 bits of grey" in said
    assert 4 == said.count("cannot be decoded")
