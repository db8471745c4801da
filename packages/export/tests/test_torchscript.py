"""The contract with this torch version: every call of torch.jit that we depend on, and nothing but its announced end."""

import importlib.metadata
import json
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

from marline.core import ExportError
from marline.export._torchscript import METADATA, free_devices, freeze, fuse, libraries, load, operations, save, script, trace

ROOT = Path(__file__).parents[3]


class Branching(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.9)
        self.weight = torch.nn.Parameter(torch.tensor([3.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.weight * x) if bool(x.sum() > 0) else x


class Kept(torch.nn.Module):
    """What `preserved_attrs` is for: a method and an attribute beside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.classes = 7

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1

    @torch.jit.export
    def twice(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward(self.forward(x))


class Normed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu()  # type: ignore[no-any-return]


class Ramp(torch.nn.Module):
    """Makes a tensor on the device of its input, inside a branch too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ramp = torch.arange(x.shape[1], device=x.device)
        return x * ramp + torch.ones(3, device=x.device)


class Answering(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": x}


class Suppressing(torch.nn.Module):
    def forward(self, boxes: torch.Tensor) -> torch.Tensor:
        return torchvision.ops.nms(boxes, boxes[:, 0], 0.5)  # type: ignore[no-any-return]


def announced(call: Callable[[], Any]) -> tuple[Any, set[str]]:
    """The result, and the messages of all warnings that are no announcement of TorchScript's end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    kinds = (FutureWarning, DeprecationWarning)
    return result, {
        str(one.message) for one in caught if not (issubclass(one.category, kinds) and "torch.jit" in str(one.message))
    }


def test_the_pinned_torch_is_the_one_tested() -> None:
    pinned = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)

    assert pinned is not None
    assert importlib.metadata.version("torch").startswith(pinned[1])


def test_script_keeps_control_flow_and_evaluation_mode() -> None:
    scripted, others = announced(lambda: torch.jit.script(Branching().eval()))

    assert set() == others
    assert [[6.0], [-2.0]] == [scripted(torch.tensor([value])).tolist() for value in (2.0, -2.0)]


def test_trace_keeps_the_one_path_it_saw_and_says_so() -> None:
    example = (torch.tensor([2.0]),)
    traced, others = announced(
        lambda: torch.jit.trace(Branching().eval(), example, strict=False, check_trace=False)  # type: ignore[no-untyped-call]
    )
    _, suspects = trace(Branching().eval(), example)

    assert [[6.0], [-6.0]] == [traced(torch.tensor([value])).tolist() for value in (2.0, -2.0)]
    assert ["might cause the trace to be incorrect" in message for message in others] == [True]
    ((file, number, told),) = suspects
    assert "return self.dropout" in Path(file).read_text().splitlines()[number - 1]
    assert told.startswith("Converting a tensor to a Python boolean")


def test_trace_takes_dicts_for_answers() -> None:
    traced, _ = trace(torch.nn.Sequential(torch.nn.ReLU(), Answering()), (torch.ones(2, 1),))

    assert ["a"] == list(traced(torch.ones(3, 1)))


def test_freeze_makes_constants_of_weights_and_needs_evaluation_mode() -> None:
    scripted, _ = announced(lambda: torch.jit.script(Branching().eval()))
    frozen, others = announced(lambda: torch.jit.freeze(scripted))
    training, _ = announced(lambda: torch.jit.script(Branching()))

    assert set() == others
    assert [] == [*frozen.parameters()]
    with pytest.raises(RuntimeError, match="in eval mode"):
        announced(lambda: torch.jit.freeze(training))


def test_freeze_preserves_methods_and_attributes_by_name() -> None:
    scripted, _ = announced(lambda: torch.jit.script(Kept().eval()))
    frozen, others = announced(lambda: torch.jit.freeze(scripted, preserved_attrs=["twice", "classes"]))
    bare, _ = announced(lambda: torch.jit.freeze(torch.jit.script(Kept().eval())))

    assert set() == others
    assert (7, 3.0) == (frozen.classes, float(frozen.twice(torch.tensor(1.0))))
    assert {"forward", "twice"} == set(frozen._c._method_names())
    assert [False, False] == [hasattr(bare, name) for name in ("twice", "classes")]


@pytest.mark.parametrize(("numerics", "folded"), [(True, True), (False, False)])
def test_freeze_folds_batch_norm_only_with_numerics(numerics: bool, folded: bool) -> None:
    scripted, _ = announced(lambda: torch.jit.script(Normed().eval()))
    frozen, others = announced(lambda: torch.jit.freeze(scripted, preserved_attrs=[], optimize_numerics=numerics))

    assert set() == others
    assert folded == ("aten::batch_norm" not in {name for name, _ in operations(frozen)})
    assert "aten::conv2d" in {name for name, _ in operations(frozen)}


def test_optimize_for_inference_takes_a_frozen_module_and_answers_alike() -> None:
    torch.manual_seed(0)
    module, x = Normed().eval(), torch.rand(2, 3, 8, 8)
    frozen, _ = announced(lambda: torch.jit.freeze(torch.jit.script(module)))
    fused, others = announced(lambda: torch.jit.optimize_for_inference(frozen))

    assert set() == others
    with torch.inference_mode():
        assert torch.allclose(module(x), fused(x), atol=1e-5)


def test_fusing_leaves_the_module_that_is_saved_as_it_was() -> None:
    """Torch changes it in place, and what it makes cannot be saved."""
    frozen = freeze(script(Normed().eval()), [])
    before = operations(frozen)

    fused = fuse(frozen)

    assert before == operations(frozen)
    assert [name for name, _ in before] != [name for name, _ in operations(fused)]


def test_devices_that_a_trace_wrote_down_become_the_inputs(tmp_path: Path) -> None:
    traced, _ = trace(Ramp(), (torch.rand(2, 3),))
    written = [name for name, _ in operations(traced) if name.startswith("device(")]

    freed = free_devices(traced)
    save(traced, tmp_path / "model.pt", {})
    elsewhere: Any = torch.jit.load(str(tmp_path / "model.pt"), map_location="meta")  # type: ignore[no-untyped-call]

    assert len(written) == freed > 0
    assert [] == [name for name, _ in operations(traced) if name.startswith("device(")]
    assert torch.equal(torch.tensor([[1.0, 2.0, 3.0]]), traced(torch.ones(1, 3)))
    assert "meta" == elsewhere(torch.ones(1, 3, device="meta")).device.type
    assert 0 == free_devices(traced)


def test_a_graph_tells_its_operators_with_constants_and_source() -> None:
    told = operations(script(Ramp()))

    assert {"aten::arange", "aten::mul"} <= {name for name, _ in told}
    assert "3" in {name for name, _ in told}
    assert any("test_torchscript.py" in place for name, place in told if name == "aten::arange")


def test_libraries_are_those_of_the_operators() -> None:
    assert [] == libraries(script(Normed().eval()))
    assert ["torchvision"] == libraries(script(Suppressing()))


def test_metadata_lies_in_the_file_as_an_extra_file(tmp_path: Path) -> None:
    save(script(torch.nn.ReLU()), tmp_path / "model.pt", {"schema": 1, "name": "é"})

    extra = {METADATA: ""}
    torch.jit.load(str(tmp_path / "model.pt"), _extra_files=extra)  # type: ignore[no-untyped-call]

    assert {"schema": 1, "name": "é"} == json.loads(extra[METADATA])
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        assert "model/extra/marline.json" in {re.sub(r"^[^/]+", "model", name) for name in archive.namelist()}


def test_save_and_load_give_the_same_answers(tmp_path: Path) -> None:
    frozen, _ = announced(lambda: torch.jit.freeze(torch.jit.script(Branching().eval())))

    _, said_saving = announced(lambda: torch.jit.save(frozen, str(tmp_path / "model.pt")))
    again, said_loading = announced(
        lambda: torch.jit.load(str(tmp_path / "model.pt"), map_location="cpu")  # type: ignore[no-untyped-call]
    )

    assert (set(), set()) == (said_saving, said_loading)
    assert [[6.0], [-2.0]] == [again(torch.tensor([value])).tolist() for value in (2.0, -2.0)]


def test_what_is_no_torchscript_is_a_runtime_error_for_the_handler_to_catch(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1)}, tmp_path / "model.pt")

    with pytest.raises(RuntimeError):
        torch.jit.load(str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("error")
def test_our_own_calls_announce_nothing(tmp_path: Path) -> None:
    module = freeze(script(Branching().eval()), [])
    trace(Branching().eval(), (torch.ones(2, 1),))
    save(module, tmp_path / "model.pt", {"schema": 1})

    answer = fuse(module)(torch.tensor([2.0])), load(tmp_path / "model.pt")(torch.tensor([2.0]))

    assert [[6.0], [6.0]] == [one.tolist() for one in answer]
    assert ["model.pt"] == [file.name for file in tmp_path.iterdir()]


def test_a_name_to_preserve_that_is_not_there_is_refused() -> None:
    with pytest.raises(ExportError, match=r"export\.preserve names absent, gone, which the exported module does not have"):
        freeze(script(Kept().eval()), ["twice", "absent", "gone"])


def test_what_is_no_torchscript_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"nothing")

    with pytest.raises(ExportError, match=r"^model\.pt is no TorchScript that can be loaded: "):
        load(tmp_path / "model.pt")
