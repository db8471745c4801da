"""`handler_factory` as the document on shared handlers describes it."""

import base64
import io
import json
import pickle
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ts.utils.util import list_classes_from_module

from marline.core import StageError
from marline.handler import FakeContext, assemble, opened

Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]

SHAPE = """
import sys
from pathlib import Path

import torch
from base_handler import handler_factory

FOLDER = Path(__file__).parent


def init_function(in_features, out_features=2, bias=True):
    return torch.nn.Linear(in_features, out_features, bias=bias)


def preprocess(data):
    return torch.as_tensor(data) * 2


def postprocess(data):
    score, class_id = data.max(0)
    return score, class_id.item(), "named"


def note(what):
    with (FOLDER / "hooks.txt").open("a") as file:
        file.write(what + "\\n")


def install_packages():
    note("install")


def unpack_dependencies():
    note("unpack, extra " + str((FOLDER / "extra.txt").exists()))
"""
KEYWORDS = """
handler = handler_factory(init_function=init_function,
                          preprocess_function=preprocess,
                          postprocess_function=postprocess,
                          install_packages=install_packages,
                          unpack_dependencies=unpack_dependencies,
                          in_features=3, bias=False)
"""
POSITIONAL = """
handler = handler_factory(init_function, preprocess, postprocess, install_packages, unpack_dependencies, 3, 4)
"""
PLAIN = """
import torch
from base_handler import handler_factory
handler = handler_factory({})
"""


def test_functions_and_keywords_reach_the_model(own: Open, ask: Ask, tmp_path: Path) -> None:
    instance = own(SHAPE + KEYWORDS)
    torch.save({"weight": torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])}, tmp_path / "archive" / "model.pth")
    instance.initialize(FakeContext(tmp_path / "archive", "model.pth"))

    answers, _ = ask(instance, [1, 5, 9], [7, 5, 9])

    assert [{"output": [10.0, 1, "named"]}, {"output": [14.0, 0, "named"]}] == answers
    assert not instance.model.training


def test_positional_arguments_go_to_the_init_function(own: Open, tmp_path: Path) -> None:
    instance = own(SHAPE + POSITIONAL)
    instance.initialize(FakeContext(tmp_path / "archive"))

    assert (3, 4, True) == (instance.model.in_features, instance.model.out_features, instance.model.bias is not None)


def test_torchserve_finds_exactly_one_class_in_the_handlers_module(own: Open) -> None:
    instance = own(SHAPE + KEYWORDS)

    assert [type(instance)] == list_classes_from_module(sys.modules["my_handler"])


def test_a_module_with_two_classes_is_refused_and_says_why(own: Open) -> None:
    with pytest.raises(ImportError, match=r"my_handler\.py must define exactly one handler class .* it defines 2"):
        own(SHAPE + KEYWORDS + "\nclass Second: ...\n")


def test_a_handler_that_cannot_be_imported_says_why(own: Open) -> None:
    with pytest.raises(StageError, match=r"the handler my_handler\.py cannot be used: ModuleNotFoundError: .*no_such_library"):
        own("import no_such_library\n")


def test_a_model_of_another_archive_with_the_same_names_is_another_module(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name / "archive").mkdir(parents=True)
        (tmp_path / name / "handler.py").write_text("from base_handler import handler_factory\nfrom beside import NAME\n")
        (tmp_path / name / "beside.py").write_text(f"NAME = {name!r}\n")
        with (tmp_path / name / "handler.py").open("a") as file:
            file.write("handler = handler_factory(lambda: NAME)\n")
        assemble(tmp_path / name / "handler.py", tmp_path, tmp_path / name / "archive")
        with opened(tmp_path / name / "archive", "handler") as instance:
            found.append(instance.functions.init())

    assert ["one", "two"] == found


def test_torchscript_needs_no_functions_at_all(own: Open, ask: Ask, tmp_path: Path) -> None:
    instance = own(PLAIN.format(""))
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), tmp_path / "archive" / "model.pt")
    instance.initialize(FakeContext(tmp_path / "archive", "model.pt"))

    assert [{"output": [0.0, 2.0]}, {"output": [3.0, 0.0]}] == ask(instance, [-1, 2], [3, -4])[0]


def test_dicts_and_tuples_of_tensors_are_answered_row_by_row(own: Open, ask: Ask, tmp_path: Path) -> None:
    instance = own(
        PLAIN.format("lambda: Two()") + "class _Two(torch.nn.Module):\n"
        "    def forward(self, x):\n        return {'twice': 2 * x, 'both': (x, x + 1)}\n"
        "_Two.__module__ = 'elsewhere'\nTwo = _Two\n"
    )
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, _ = ask(instance, [1], [5])

    assert [{"output": {"twice": [2], "both": [[1], [2]]}}, {"output": {"twice": [10], "both": [[5], [6]]}}] == answers


@pytest.mark.parametrize("content", [None, b""], ids=["no file", "empty file"])
def test_without_a_checkpoint_the_init_function_brings_the_weights(own: Open, tmp_path: Path, content: bytes | None) -> None:
    instance = own(PLAIN.format("lambda: torch.nn.Linear(2, 1)"))
    if content is not None:
        (tmp_path / "archive" / "model.pt").write_bytes(content)
    instance.initialize(FakeContext(tmp_path / "archive", "model.pt" if content is not None else None))

    assert isinstance(instance.model, torch.nn.Linear)


def test_an_archive_with_neither_weights_nor_init_function_is_refused(own: Open, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no weights and the handler has no init_function"):
        own(PLAIN.format("")).initialize(FakeContext(tmp_path / "archive"))


def test_a_state_dict_without_an_init_function_is_refused(own: Open, tmp_path: Path) -> None:
    instance = own(PLAIN.format(""))
    torch.save(torch.nn.Linear(2, 1).state_dict(), tmp_path / "archive" / "model.pt")

    with pytest.raises(RuntimeError, match=r"model\.pt is not TorchScript and the handler has no init_function"):
        instance.initialize(FakeContext(tmp_path / "archive", "model.pt"))


def test_a_state_dict_of_another_model_is_refused(own: Open, tmp_path: Path) -> None:
    instance = own(PLAIN.format("lambda: torch.nn.Linear(2, 1)"))
    torch.save(torch.nn.Linear(3, 1).state_dict(), tmp_path / "archive" / "model.pt")

    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        instance.initialize(FakeContext(tmp_path / "archive", "model.pt"))


class Hostile:
    """Unpickling this would make a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def test_a_checkpoint_cannot_run_code(own: Open, tmp_path: Path) -> None:
    instance = own(PLAIN.format("lambda: torch.nn.Linear(2, 1)"))
    torch.save({"weight": Hostile(tmp_path / "ran")}, tmp_path / "archive" / "model.pt")

    with pytest.raises(pickle.UnpicklingError, match="weights_only"):
        instance.initialize(FakeContext(tmp_path / "archive", "model.pt"))
    assert not (tmp_path / "ran").exists()


def with_extra(folder: Path, name: str, kind: bytes = tarfile.REGTYPE) -> FakeContext:
    """A context whose model config names an extra archive that holds one entry."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.size, entry.linkname = kind, 5 if kind == tarfile.REGTYPE else 0, "/etc"
    with tarfile.open(folder / "extra.tar.gz", "w:gz") as extra:
        extra.addfile(entry, io.BytesIO(b"extra"))
    return FakeContext(folder, model_yaml_config={"system": {"extraFiles": "extra.tar.gz"}})


def test_extra_files_are_unpacked_and_hooks_run_once_in_order(own: Open, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    first = own(SHAPE + KEYWORDS)
    context = with_extra(folder, "extra.txt")

    first.initialize(context)
    type(first)().initialize(context)

    assert "extra" == (folder / "extra.txt").read_text()
    assert ["install", "unpack, extra True"] == (folder / "hooks.txt").read_text().splitlines()


FAILING = """
from pathlib import Path

import torch
from base_handler import handler_factory

def install_packages():
    with (Path(__file__).parent / "tried").open("a") as file:
        file.write("x")
    raise OSError("no network")

handler = handler_factory(torch.nn.Identity, install_packages=install_packages)
"""


def test_hooks_that_fail_run_again_for_the_next_worker(own: Open, tmp_path: Path) -> None:
    instance = own(FAILING)

    for _ in range(2):
        with pytest.raises(OSError, match="no network"):
            instance.initialize(FakeContext(tmp_path / "archive"))

    assert "xx" == (tmp_path / "archive" / "tried").read_text()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("../outside.txt", tarfile.REGTYPE), ("deep/../../outside.txt", tarfile.REGTYPE), ("link", tarfile.SYMTYPE)],
)
def test_extra_files_that_leave_the_folder_are_refused(own: Open, tmp_path: Path, name: str, kind: bytes) -> None:
    instance = own(SHAPE + KEYWORDS)
    context = with_extra(tmp_path / "archive", name, kind)

    with pytest.raises(tarfile.FilterError):
        instance.initialize(context)
    assert [] == [*tmp_path.rglob("outside.txt"), *tmp_path.rglob("link")]
    assert not (tmp_path / "archive" / ".marline-prepared").exists()


@pytest.mark.parametrize(
    ("body", "shape"),
    [([1.0], [1]), ([[1.0, 2.0]], [1, 2]), ([], [0]), (7, [])],
    ids=["too short", "with a batch dimension", "empty", "a number"],
)
def test_a_wrong_shape_is_refused_naming_the_expected_one(
    own: Open, ask: Ask, tmp_path: Path, body: Any, shape: list[int]
) -> None:
    instance = own(PLAIN.format("torch.nn.Identity, lambda data: torch.tensor([1.0, 2.0]) if data == 'golden' else data"))
    pair = {"name": "a", "request": base64.b64encode(b"golden").decode(), "answer": None}
    (tmp_path / "archive" / "golden.json").write_text(json.dumps({"pairs": [pair]}))
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, context = ask(instance, [3, 4], body, [5, 6])

    assert {1: (400, "Bad Request")} == context.statuses
    assert f"expected shape [2], got {shape}" == answers[1]["message"]
    assert [[3.0, 4.0], [5.0, 6.0]] == [answers[0]["output"], answers[2]["output"]]


@pytest.mark.parametrize("body", [[[1.0], [1.0, 2.0]], ["a"], [None], {"a": 1}], ids=["ragged", "words", "null", "an object"])
def test_what_is_no_tensor_is_refused(own: Open, ask: Ask, tmp_path: Path, body: Any) -> None:
    instance = own(PLAIN.format("torch.nn.Identity"))
    instance.initialize(FakeContext(tmp_path / "archive"))

    answers, _ = ask(instance, [1.0], body)

    assert {"output": [1.0]} == answers[0]
    assert (400, "BadRequest") == (answers[1]["code"], answers[1]["type"])
