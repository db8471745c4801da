import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import marline.export
from marline.core import ExportError, Manifest, ParityError, StageError, verify
from marline.handler import read_golden, read_signature

Export = Callable[..., Manifest]
NET = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        {}
"""
BRANCHING = NET.format("return torch.stack([self.weight * row if bool(row > 0) else row - 5 for row in x])")
UNSCRIPTABLE = NET.format("return self.weight * torch.stack([x, x + 1], **{'dim': 1}).sum(1)")
BRANCHING_UNSCRIPTABLE = NET.format("return torch.stack([self.weight * x], **{'dim': 0})[0] if bool(x.sum() > 0) else x - 5")
IGNORE_TRACER = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


def test_script_is_preferred_and_what_is_left_is_proven_and_frozen(run: Export, tmp_path: Path) -> None:
    manifest = run(BRANCHING)

    verify(manifest)
    assert "script" == manifest.facts["method"]
    assert {"eager.json", "model.pt", "golden.json", "parity.json"} == set(manifest.outputs)
    stages = ["exported", "frozen", "reloaded"] + ["C++"] * (not manifest.facts["skipped"])
    cases = ["batch 1", "batch 2", "batch 7", "batch 2, zeros", "batch 2, the opposite", "batch 2, a thousandth"]
    assert [(stage, case) for stage in stages for case in cases] == [
        (row["stage"], row["case"]) for row in manifest.facts["parity"]
    ]
    assert all(row["max_abs"] <= 1e-5 for row in manifest.facts["parity"])
    assert manifest.facts["parity"] == json.loads(manifest.path("parity.json").read_text())["rows"]
    assert {"shape": [1], "dtype": "float32"} == manifest.facts["input"]
    told = read_signature(manifest.path("model.pt"))
    assert ("100.png", (tmp_path / "run" / "load" / "sample" / "100.png").read_bytes()) == (
        told["example"]["name"],
        base64.b64decode(told.pop("example")["body"]),
    )
    assert manifest.facts["signature"] == told
    frozen = torch.jit.load(str(manifest.path("model.pt")))  # type: ignore[no-untyped-call]
    assert [] == [*frozen.parameters()]

    pairs = read_golden(manifest.path("golden.json"))
    means = {f"{grey:03}.png": grey / 127.5 - 1 for grey in (100, 120, 200, 255)}
    sample = tmp_path / "run" / "load" / "sample"
    assert [(name, (sample / name).read_bytes()) for name in means] == [(pair.name, pair.request) for pair in pairs]
    for pair in pairs:
        mean = means[pair.name]  # the weight is 2
        assert [pytest.approx(2 * mean if mean > 0 else mean - 5, abs=1e-5)] == pair.answer["output"]


def test_what_cannot_be_scripted_is_traced_and_the_reason_is_kept(run: Export) -> None:
    facts = run(UNSCRIPTABLE).facts

    assert "trace" == facts["method"]
    assert facts["reason"].startswith("script: the compiler says: ")
    assert "modeling_tiny.py:18: a ** in a call in forward" in facts["reason"]


def test_script_alone_refuses_what_cannot_be_scripted_with_the_remedy(run: Export, tmp_path: Path) -> None:
    told = r"^script: the compiler says: [\s\S]+ a \*\* in a call [\s\S]+; write them out\nNothing was published$"
    with pytest.raises(ExportError, match=told):
        run(UNSCRIPTABLE, method="script")
    assert not (tmp_path / "run" / "export" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            "return x.double() if torch.jit.is_scripting() else x",
            r"^script: exported, batch 1, output: float64 \[1, 1\], the eager model gives float32",
        ),
        ("return x[:1] if torch.jit.is_scripting() else x", r"batch 2, output: float32 \[1, 1\], .* baked in"),
        (
            "return x + 0.01 if torch.jit.is_scripting() else x",
            r"up to 0\.01 absolute, .* allowed are atol 1e-05, rtol 0\.0001",
        ),
    ],
    ids=["another type", "a batch size baked in", "a small shift"],
)
def test_an_export_that_differs_stops_the_run_and_leaves_nothing_published(
    run: Export, tmp_path: Path, body: str, told: str
) -> None:
    with pytest.raises(ParityError, match=told):
        run(NET.format(body), method="script")
    assert [] == [*(tmp_path / "run" / "export").iterdir()]


@IGNORE_TRACER
def test_a_branch_that_a_trace_froze_is_found(run: Export) -> None:
    """Batches of 1 and 2 begin with two dark samples and take the traced branch; the batch of 7 does not."""
    told = (
        r"exported, batch 7, output: differs from the eager model by up to [\d.]+ absolute[\s\S]+modeling_tiny\.py:18: a choice"
    )
    with pytest.raises(ParityError, match=told):
        run(BRANCHING_UNSCRIPTABLE)


def test_a_difference_that_only_a_golden_pair_shows_is_found_too(run: Export, tmp_path: Path) -> None:
    """Batches of 1 and 2 have the two darkest samples in them, so that no case is as bright as the third."""
    with pytest.raises(ParityError, match=r"golden pair 200\.png, eager against exported: answer\.output\[0\]: expected 0\.56"):
        run(NET.format("return x + 1 if torch.jit.is_scripting() and bool(x.max() > 0.5) else x"), batch_sizes=(1, 2))
    assert [] == [*(tmp_path / "run" / "export").iterdir()]


def test_an_answer_that_depends_on_its_neighbours_in_a_batch_is_found(run: Export) -> None:
    with pytest.raises(ParityError, match=r"golden pair 100\.png, alone against in a batch with others: answer"):
        run(NET.format("return self.weight * x / x.norm()"))


def test_a_model_that_answers_nan_is_refused(run: Export) -> None:
    with pytest.raises(StageError, match=r"the sample 100\.png gets no answer: ValueError"):
        run(NET.format("return (x - 5).log()"))


def test_a_model_that_fails_on_a_sample_says_on_which_and_why(run: Export) -> None:
    with pytest.raises(StageError, match=r"the sample 100\.png gets no answer: RuntimeError: mat1 and mat2"):
        run(NET.format("return x @ torch.ones(3, 3)"))


def test_public_names() -> None:
    exposed = {name for name in vars(marline.export) if not name.startswith("_")}

    assert set(marline.export.__all__) == exposed
