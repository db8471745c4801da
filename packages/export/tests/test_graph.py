"""From a module to a file that is proven, in every shape a module can have."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from marline.core import ExportConfig, ExportError, ParityError, RequestError
from marline.export._elsewhere import cpp_program
from marline.export._graph import Proven, prove_graph, prove_in_process
from marline.export._torchscript import load, operations
from marline.handler import Collate, adapted, collate, load_graph, read_signature
from marline.handler.collation import as_list
from marline.handler.graph_file import from_graph, to_graph

SEEDED = torch.Generator().manual_seed(0)
ROWS = [torch.randn(4, generator=SEEDED) for _ in range(4)]
TEXTS = [
    {"ids": torch.randint(1, 20, (length,), generator=SEEDED), "mask": torch.ones(length, dtype=torch.int64)}
    for length in (5, 9, 12)
]
STAGES = ["exported", "frozen", "reloaded", "C++"]
Prove = Callable[..., Proven]


class Moments(NamedTuple):
    mean: torch.Tensor
    spread: torch.Tensor


class Structured(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor], Moments]:
        return x * 2, {"up": x + 1, "down": x - 1}, Moments(x.mean(1), x.var(1))


class Named(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": x * 2, "hidden": x + 1}


class Mean(nn.Module):
    """The mean of the words that the mask leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 3)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        kept = mask.unsqueeze(-1)
        out: torch.Tensor = (self.words(ids) * kept).sum(1) / kept.sum(1).clamp(min=1)
        return out


class Stars(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, *xs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(xs[0])
        return out


class Several(nn.Module):
    """Two methods and an attribute beside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = 7
        self.linear = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out

    @torch.jit.export
    def scaled(self, x: torch.Tensor, by: float) -> torch.Tensor:
        return self.forward(x) * by

    @torch.jit.export
    def drawn(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x) + torch.rand(4, device=x.device)


class Ramp(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.arange(x.shape[1], device=x.device) + torch.zeros(4, device=x.device)


class Boxes(nn.Module):
    """Keeps the best of overlapping boxes, with torchvision's operator."""

    def forward(self, boxes: torch.Tensor) -> torch.Tensor:
        flat = boxes.flatten(0, 1)
        kept: torch.Tensor = torchvision.ops.nms(flat, flat[:, 0] - flat[:, 1], 0.5)
        return boxes * len(kept)


class Patches(nn.Module):
    """A backbone of one convolution, for a detector of a few hundred weights."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return OrderedDict([("0", self.patches(x))])


class InPlaceOnList(nn.Module):
    def forward(self, xs: list[torch.Tensor]) -> list[torch.Tensor]:
        return [x.mul_(2) for x in xs]


@pytest.fixture
def proven(tmp_path: Path, quick: Callable[..., ExportConfig]) -> Prove:
    """Prove a module with the quick settings, changed, and write model.pt."""

    def make(module: nn.Module, samples: Any, gather: Collate = collate, **changed: object) -> Proven:
        return prove_graph(module, samples, quick(**changed), tmp_path / "model.pt", gather)

    return make


@pytest.fixture
def stages(tmp_path: Path) -> list[str]:
    """Where every case is answered on this machine."""
    return STAGES if isinstance(cpp_program(tmp_path), Path) else STAGES[:-1]


def test_every_case_is_answered_as_made_frozen_in_a_fresh_process_and_in_cpp(
    proven: Prove, stages: list[str], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    linear = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
    cases = [f"batch {size}" for size in (1, 2, 3)] + [
        f"batch 2, {value}" for value in ("zeros", "the opposite", "a thousandth")
    ]

    found = proven(linear, ROWS)

    assert [(stage, case) for stage in stages for case in cases] == [(row.stage, row.case) for row in found.rows]
    assert ("script", "scripting kept all control flow", []) == (found.method, found.reason, found.suspects)
    assert (stages == STAGES) == (found.skipped == [])
    assert (
        {
            "schema": 1,
            "torch": torch.__version__.partition("+")[0],
            "method": "script",
            "methods": ["forward"],
            "dtype": "float32",
            "channels_last": False,
            "fuse": False,
            "libraries": [],
            "inputs": [{"dtype": "float32", "shape": ["batch", 4]}],
            "outputs": {"output": {"dtype": "float32", "shape": ["batch", 2]}},
        }
        == read_signature(tmp_path / "model.pt")
        == found.signature
    )
    with torch.inference_mode():
        assert torch.allclose(linear(torch.ones(5, 4)), load(tmp_path / "model.pt")(torch.ones(5, 4)))
    assert ["model.pt"] == [file.name for file in tmp_path.iterdir()]


@pytest.mark.parametrize("method", ["script", "trace"])
@pytest.mark.parametrize(
    ("module", "names"),
    [
        (Structured, ["output[0]", "output[1].up", "output[1].down", "output[2][0]", "output[2][1]"]),
        (Named, ["logits", "hidden"]),
    ],
)
def test_structured_outputs_keep_their_names_everywhere(
    proven: Prove, stages: list[str], module: type[nn.Module], names: list[str], method: str
) -> None:
    found = proven(module(), ROWS, method=method)

    assert {stage: set(names) for stage in stages} == {
        stage: {row.output for row in found.rows if row.stage == stage} for stage in stages
    }
    assert names == list(found.signature["outputs"])


@pytest.mark.parametrize("method", ["script", "trace"])
def test_inputs_by_name_and_of_any_length(proven: Prove, method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    eager = Mean()

    found = proven(eager, TEXTS, method=method)

    lengths = {row.case for row in found.rows if "length" in row.case}
    assert {f"batch 3, length {length}" for length in (3, 6, 11)} == lengths
    assert [{"dtype": "int64", "shape": ["batch", "any"]}] * 2 == found.signature["inputs"]
    with torch.inference_mode():
        ids, mask = torch.arange(15).reshape(5, 3), torch.ones(5, 3)
        assert torch.allclose(eager(ids, mask), load(tmp_path / "model.pt")(ids, mask))


def test_auto_falls_back_to_a_trace_and_says_why(proven: Prove) -> None:
    found = proven(Stars(), ROWS)

    assert "trace" == found.method
    assert found.reason.startswith("script: the compiler says")
    assert "test_graph.py" in found.reason
    assert "*xs in forward" in found.reason


def test_methods_and_attributes_are_preserved_and_calls_are_compared(proven: Prove, stages: list[str], tmp_path: Path) -> None:
    calls = {"scaled": [{"by": 2.0}, {"by": -1.0}], "drawn": [{}]}

    found = proven(Several(), ROWS, preserve=("classes", "scaled"), calls=calls)
    loaded: Any = load(tmp_path / "model.pt")

    told = [f"{call}, batch {size}" for call in ("scaled(by=2.0)", "scaled(by=-1.0)", "drawn()") for size in (1, 2)]
    assert dict.fromkeys(stages, told) == {
        stage: [row.case for row in found.rows if row.stage == stage and "(" in row.case] for stage in stages
    }
    assert {"forward", "scaled", "drawn"} == set(found.signature["methods"])
    assert 7 == loaded.classes
    assert torch.equal(loaded(torch.ones(1, 4)) * 3, loaded.scaled(torch.ones(1, 4), 3.0))


def test_a_layout_for_convolutions_is_refused_where_there_are_none(proven: Prove) -> None:
    with pytest.raises(RequestError, match=r"export\.channels_last=true has no effect: the model has no convolution"):
        proven(torch.nn.Linear(4, 2), ROWS, channels_last=True)


def test_what_is_not_preserved_is_frozen_away(proven: Prove, tmp_path: Path) -> None:
    proven(Several(), ROWS)

    assert not hasattr(load(tmp_path / "model.pt"), "classes")


@pytest.mark.parametrize(("method", "module"), [("script", Several), ("trace", Named)])
def test_a_name_to_preserve_that_the_graph_has_not_is_refused(
    proven: Prove, tmp_path: Path, method: str, module: type[nn.Module]
) -> None:
    with pytest.raises(ExportError, match=rf"{method}: export\.preserve names absent, which the exported module does not have"):
        proven(module(), ROWS, method=method, preserve=("forward", "absent"))
    assert [] == [*tmp_path.iterdir()]


@pytest.mark.parametrize("method", ["script", "trace"])
def test_declared_chance_is_compared_under_one_seed_everywhere(proven: Prove, stages: list[str], method: str) -> None:
    found = proven(Noisy(), ROWS, method=method, random=True)

    assert stages == list(dict.fromkeys(row.stage for row in found.rows))
    assert max(row.max_abs for row in found.rows) <= 1e-6


@pytest.mark.parametrize(("dtype", "off"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_halves_are_published_and_answer_floats_through_the_handler(
    proven: Prove, tmp_path: Path, stages: list[str], dtype: str, off: float
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 2)
    with torch.inference_mode():
        expected = linear(torch.stack(ROWS))

    found = proven(linear, ROWS, dtype=dtype)
    graph, told = load_graph(tmp_path / "model.pt", torch.device("cpu"))
    with torch.inference_mode():
        raw = graph(*to_graph((torch.stack(ROWS),), torch.device("cpu"), told))

    assert stages == list(dict.fromkeys(row.stage for row in found.rows))
    assert getattr(torch, dtype) == raw.dtype
    assert [{"dtype": dtype, "shape": ["batch", 4]}] == told["inputs"]
    assert {"output": {"dtype": "float32", "shape": ["batch", 2]}} == told["outputs"]
    assert torch.allclose(expected, from_graph(raw), atol=off, rtol=off)


@pytest.mark.parametrize("method", ["script", "trace"])
def test_devices_come_from_the_input_in_the_file(proven: Prove, tmp_path: Path, method: str) -> None:
    proven(Ramp(), ROWS, method=method)
    graph: Any = torch.jit.load(str(tmp_path / "model.pt"), map_location="meta")  # type: ignore[no-untyped-call]

    assert "meta" == graph(torch.ones(3, 4, device="meta")).device.type
    assert [] == [name for name, _ in operations(graph) if "device(" in name]


def test_a_graph_that_needs_a_library_names_it_and_says_why_cpp_is_left_out(proven: Prove, tmp_path: Path) -> None:
    boxes = [torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 1.0, 4.0, 4.0], [5.0, 5.0, 9.0, 9.0]])] * 2

    found = proven(Boxes(), boxes)

    assert ["torchvision"] == read_signature(tmp_path / "model.pt")["libraries"]
    assert ["C++: its graph needs operators of torchvision, which a C++ program must link"] == found.skipped
    assert STAGES[:3] == list(dict.fromkeys(row.stage for row in found.rows))


def test_without_a_compiler_cpp_is_left_out_with_a_word(proven: Prove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    found = proven(nn.ReLU(), ROWS)

    assert ["C++: there is no C++ compiler on this machine (apt install g++)"] == found.skipped
    assert STAGES[:3] == list(dict.fromkeys(row.stage for row in found.rows))


def small_detector() -> nn.Module:
    boxes = DefaultBoxGenerator([[2]], scales=[0.2, 0.5])
    return SSD(Patches(), boxes, (32, 32), num_classes=3, score_thresh=0.0, topk_candidates=20, detections_per_img=5)  # type: ignore[no-any-return]


def ssdlite() -> nn.Module:
    made: nn.Module = torchvision.models.get_model("ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None)
    return made


@pytest.mark.filterwarnings("ignore:SSD always returns:UserWarning")
@pytest.mark.parametrize("make", [small_detector, pytest.param(ssdlite, marks=pytest.mark.slow)])
def test_a_detector_takes_a_list_of_images_of_any_size(proven: Prove, tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    images = [torch.rand(3, 40, 56), torch.rand(3, 64, 48)]
    eager = adapted(make().eval(), None)

    found = proven(eager, images, as_list, batch_sizes=(1, 2))
    graph, told = load_graph(tmp_path / "model.pt", torch.device("cpu"))
    with torch.inference_mode():
        expected, got = eager(images), graph(*to_graph((images,), torch.device("cpu"), told))

    assert "script" == found.method
    assert [{"kind": "list of tensor"}] == told["inputs"]
    assert ["torchvision"] == told["libraries"]
    names = [f"output[{index}].{name}" for index in (0, 1) for name in ("boxes", "scores", "labels")]
    assert names == [row.output for row in found.rows if (row.stage, row.case) == ("reloaded", "batch 2")]
    for left, right in zip(expected, got, strict=True):
        assert torch.allclose(left["boxes"], right["boxes"], atol=1e-3)
        assert torch.equal(left["labels"], right["labels"])


def test_an_input_in_a_list_that_is_written_into_is_refused(proven: Prove) -> None:
    with pytest.raises(ExportError, match=r"changes its input in place \(argument 0, batch 1\)"):
        proven(InPlaceOnList(), ROWS, as_list)


class Fleeting(nn.Module):
    """Answers otherwise in another process, whose numbers are of another type when nothing is said."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones(x.shape[1])


def test_a_file_that_answers_otherwise_elsewhere_is_not_left_behind(proven: Prove, tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(
            ParityError, match=r"script: reloaded, batch 1, output: float32 \[1, 4\], the eager model gives float64"
        ):
            proven(Fleeting(), ROWS, method="script")
    finally:
        torch.set_default_dtype(torch.float32)
    assert [] == [*tmp_path.iterdir()]


CHOICES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bool": lambda x: x * 2 if x.abs().max() > 1000 else x,
    "max": lambda x: x * 2 if x.max() > 5 and x.max() > 1000 else x,
    "clamp": lambda x: x.clamp(-1000, 1000) if x.abs().max() > 1000 else x,
    "float": lambda x: x * 2 if float(x.abs().max()) > 1000 else x,
    "item": lambda x: x * 2 if x.min().item() < -1000 else x,
    "int": lambda x: x * 2 if int(x.abs().max() * 10) > 900 else x,
    "tolist": lambda x: x * 2 if max(x.flatten().tolist()) > 1000 else x,
    "equal": lambda x: x * 2 if torch.equal(x, torch.full_like(x, 5.0)) else x,
    "allclose": lambda x: x * 2 if x.allclose(torch.full_like(x, 5.0)) else x,
    "is_nonzero": lambda x: x * 2 if x.gt(1000).any().is_nonzero() else x,
}
HARMLESS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "both branches are alike": lambda x: x.abs() if x.sum() > 0 else x.abs() + 0,
    "a check": lambda x: checked(x, float(x.abs().max()) < 1000),
    "a number that inputs do not change": lambda x: x * float(torch.ones_like(x).max()),
}


def checked(x: torch.Tensor, holds: bool) -> torch.Tensor:
    if not holds:
        raise ValueError("too large")
    return x


class Choosing(nn.Module):
    def __init__(self, choice: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.choice = choice

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.choice(x) + torch.rand_like(x)


@pytest.mark.parametrize("name", CHOICES)
def test_a_branch_that_no_case_takes_is_found_however_the_value_was_asked_for(
    name: str, quick: Callable[..., ExportConfig]
) -> None:
    told = rf"(?s)the trace keeps one branch only, and the other one matters\n.*\"{name}\": lambda x: x.+ if "
    with pytest.raises(ParityError, match=told):
        prove_in_process(Choosing(CHOICES[name]), ROWS, "trace", quick(random=True))


@pytest.mark.parametrize("name", HARMLESS)
def test_a_choice_that_changes_no_answer_is_accepted(name: str, quick: Callable[..., ExportConfig]) -> None:
    graph = prove_in_process(Choosing(HARMLESS[name]), ROWS, "trace", quick(random=True))

    assert (2, 4) == graph(torch.ones(2, 4)).shape
