"""The contract with this torch version: every call of torch.jit that we depend on, and nothing but its announced end."""

import importlib.metadata
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marline.core import ExportError
from marline.export._torchscript import load, save, to_torchscript

ROOT = Path(__file__).parents[3]


class Branching(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(0.9)
        self.weight = torch.nn.Parameter(torch.tensor([3.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.weight * x) if bool(x.sum() > 0) else x


class Impossible(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return {1, str(x)}


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
        lambda: torch.jit.trace(Branching().eval(), example, check_trace=True)  # type: ignore[no-untyped-call]
    )

    assert [[6.0], [-6.0]] == [traced(torch.tensor([value])).tolist() for value in (2.0, -2.0)]
    assert all("might cause the trace to be incorrect" in message for message in others)


def test_freeze_makes_constants_of_weights_and_needs_evaluation_mode() -> None:
    scripted, _ = announced(lambda: torch.jit.script(Branching().eval()))
    frozen, others = announced(lambda: torch.jit.freeze(scripted))
    training, _ = announced(lambda: torch.jit.script(Branching()))

    assert set() == others
    assert [] == [*frozen.parameters()]
    with pytest.raises(RuntimeError, match="in eval mode"):
        announced(lambda: torch.jit.freeze(training))


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
    exported = to_torchscript(Branching().eval(), (torch.ones(2, 1),), "auto")
    save(exported.module, tmp_path / "model.pt")

    answer = load(tmp_path / "model.pt")(torch.tensor([2.0]))

    assert "script" == exported.method
    assert isinstance(answer, torch.Tensor)
    assert [6.0] == answer.tolist()
    assert ["model.pt"] == [file.name for file in tmp_path.iterdir()]


def test_trace_alone_may_be_asked_for() -> None:
    exported = to_torchscript(torch.nn.ReLU().eval(), (torch.ones(2, 1),), "trace")

    assert ("trace", "scripting failed, export.method=trace") == (exported.method, exported.reason)


def test_what_neither_way_can_make_says_why_for_both() -> None:
    with pytest.raises(ExportError, match=r"neither script nor trace works\. Script: \w+: .+ Trace: .+"):
        to_torchscript(Impossible().eval(), (torch.ones(2, 1),), "auto")


def test_torchscript_that_was_given_is_passed_on_as_it_is() -> None:
    given = torch.jit.script(torch.nn.ReLU().eval())

    exported = to_torchscript(given, (torch.ones(2, 1),), "auto")

    assert ("given", given) == (exported.method, exported.module)
