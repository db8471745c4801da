"""A TorchScript file says how it is to be run, and the handler does so."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from marline.handler import FakeContext, load_graph, read_signature
from marline.handler.graph_file import from_graph, to_graph

Ask = Callable[..., tuple[list[Any], FakeContext]]
Open = Callable[..., Any]
CPU = torch.device("cpu")
HANDLER = "from base_handler import handler_factory\nhandler = handler_factory()\n"
FOLDER = Path(__file__).parents[1] / "src" / "marline" / "handler"


class Convolution(torch.nn.Module):
    """Convolution, batch norm and ReLU, which inference can do as one."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normal: torch.Tensor = self.norm(self.convolution(images))
        return normal.relu()


class Boxes(torch.nn.Module):
    """Needs an operator of torchvision."""

    def forward(self, boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        kept: torch.Tensor = torchvision.ops.nms(boxes, scores, 0.5)
        return kept


def saved(module: torch.nn.Module, file: Path, told: dict[str, Any] | None) -> Path:
    extra = {} if told is None else {"marline.json": json.dumps(told)}
    scripted = torch.jit.freeze(torch.jit.script(module.eval()))
    torch.jit.save(scripted, str(file), _extra_files=extra)
    return file


def test_what_a_file_says_of_itself_is_read_without_loading_it(tmp_path: Path) -> None:
    told = {"schema": 1, "dtype": "float32", "libraries": [], "inputs": [{"dtype": "float32", "shape": ["batch", 3]}]}

    assert told == read_signature(saved(torch.nn.ReLU(), tmp_path / "model.pt", told))


def test_a_file_made_elsewhere_says_nothing(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 1).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "deep.pt", "w") as file:
        file.writestr("deep/er/extra/marline.json", "{")  # not where TorchScript puts its extra files
    files = [
        saved(torch.nn.ReLU(), tmp_path / "model.pt", None),
        *(tmp_path / f"{name}.pt" for name in ("weights", "text", "deep")),
    ]

    assert [{}] * 4 == [read_signature(file) for file in files]


@pytest.mark.parametrize(
    "told",
    [
        b"[1]",
        b"null",
        b"not JSON",
        b"\xff{}",
        b"[" * 100_000,
        b'{"libraries": 3}',
        b'{"libraries": [["os"]]}',
        b" " * ((32 << 20) + 1),
    ],
    ids=["list", "null", "no JSON", "no UTF-8", "deep", "a number", "a list in it", "too large"],
)
def test_what_is_no_signature_is_refused(told: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model/extra/marline.json", told)

    with pytest.raises(ValueError, match=r"marline\.json .* is not what stage export writes"):
        read_signature(tmp_path / "model.pt")


def test_a_file_that_says_nothing_is_run_as_it_is(tmp_path: Path) -> None:
    graph, told = load_graph(saved(torch.nn.ReLU(), tmp_path / "model.pt", None), CPU)
    halves = torch.tensor([-1.0, 2.0], dtype=torch.float64)

    (argument,) = to_graph((halves,), CPU, told)

    assert ({}, torch.float64) == (told, argument.dtype)
    assert [0.0, 2.0] == graph(argument).tolist()


def test_the_operators_of_an_unknown_library_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "surprise.py").write_text("raise SystemExit('imported')\n")
    file = saved(torch.nn.ReLU(), tmp_path / "model.pt", {"libraries": ["surprise"]})

    with pytest.raises(ImportError, match=r"model\.pt needs the operators of surprise, which this handler does not know"):
        load_graph(file, CPU)


def test_a_known_library_is_imported_before_the_graph_is_loaded(tmp_path: Path) -> None:
    told = saved(Boxes(), tmp_path / "told.pt", {"libraries": ["torchvision"]})
    untold = saved(Boxes(), tmp_path / "untold.pt", None)
    text = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from graph_file import load_graph
try:
    load_graph(Path(sys.argv[3]), torch.device("cpu"))
except RuntimeError as error:
    print("torchvision::nms" in str(error), "torchvision" in sys.modules)
graph, _ = load_graph(Path(sys.argv[2]), torch.device("cpu"))
print(graph(torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2.1], [5, 5, 6, 6]]), torch.tensor([0.5, 0.9, 0.1])).tolist())
"""
    command = [sys.executable, "-W", "ignore", "-c", text, *map(str, (FOLDER, told, untold))]

    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    assert ["True False", "[1, 2]"] == done.stdout.splitlines()


def test_operators_are_fused_where_the_file_says_so(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, images = Convolution(), torch.rand(2, 3, 8, 8)
    loaded = {fuse: load_graph(saved(module, tmp_path / f"{fuse}.pt", {"fuse": fuse}), CPU)[0] for fuse in (True, False)}

    kinds = {fuse: {node.kind() for node in graph.graph.nodes()} for fuse, graph in loaded.items()}

    assert "aten::relu" in kinds[False] - kinds[True]
    assert torch.allclose(loaded[False](images), loaded[True](images), atol=1e-5)


@pytest.mark.parametrize(("name", "half"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_only_float32_becomes_a_half_and_every_half_comes_back(name: str, half: torch.dtype) -> None:
    numbers, whole, double = torch.tensor([0.5]), torch.tensor([3]), torch.tensor([0.5], dtype=torch.float64)

    given = to_graph((numbers, whole, double, [numbers, whole]), CPU, {"dtype": name})

    assert [half, torch.int64, torch.float64] == [tensor.dtype for tensor in given[:3]]
    assert [half, torch.int64] == [tensor.dtype for tensor in given[3]]
    answered = from_graph({"tuple": (given[0], given[1]), "list": [{"deep": given[0]}], "words": "as they are"})
    assert (torch.float32, torch.int64) == tuple(tensor.dtype for tensor in answered["tuple"])
    assert (torch.float32, "as they are") == (answered["list"][0]["deep"].dtype, answered["words"])


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_a_graph_of_halves_is_asked_and_answers_in_float32(own: Open, ask: Ask, tmp_path: Path, name: str) -> None:
    instance = own(HANDLER)
    module = torch.nn.Linear(2, 1).to(getattr(torch, name))
    torch.nn.init.constant_(module.weight, 0.5)
    torch.nn.init.zeros_(module.bias)
    saved(module, tmp_path / "archive" / "model.pt", {"dtype": name})
    instance.initialize(FakeContext(tmp_path / "archive", "model.pt"))

    answers, context = ask(instance, [1, 2], [3, 4])

    assert {} == context.statuses
    assert [{"output": [1.5]}, {"output": [3.5]}] == answers
    assert torch.float32 == instance.inference([torch.tensor([1.0, 2.0])])[0].dtype


def test_an_archive_whose_graph_needs_an_unknown_library_ends_the_deployment(own: Open, tmp_path: Path) -> None:
    instance = own(HANDLER)
    saved(torch.nn.ReLU(), tmp_path / "archive" / "model.pt", {"libraries": ["surprise"]})

    with pytest.raises(ImportError, match="operators of surprise"):
        instance.initialize(FakeContext(tmp_path / "archive", "model.pt"))
