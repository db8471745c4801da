import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import marline.export
from marline.core import ExportError, Manifest, ParityError, StageError, verify
from marline.handler import read_golden

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
    assert {"model.pt", "golden.json", "parity.json"} == set(manifest.outputs)
    assert [(where, size) for where in ("exported", "reloaded") for size in (1, 2, 7)] == [
        (row["stage"], row["batch"]) for row in manifest.facts["parity"]
    ]
    assert all(row["max_abs"] <= 1e-5 for row in manifest.facts["parity"])
    assert manifest.facts["parity"] == json.loads(manifest.path("parity.json").read_text())["rows"]
    assert {"shape": [1], "dtype": "float32"} == manifest.facts["input"]
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
    assert facts["reason"].startswith("scripting failed, ")
    assert "keyword" in facts["reason"] or "kwargs" in facts["reason"] or "dict" in facts["reason"].lower()


def test_script_alone_refuses_what_cannot_be_scripted_with_the_remedy(run: Export, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"export\.method=script, and scripting failed: .*export\.method=auto would trace"):
        run(UNSCRIPTABLE, method="script")
    assert not (tmp_path / "run" / "export" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return nn.functional.dropout(self.weight * x, 0.5, training=True)", r"differs from the eager model by up to [\d.]+"),
        (
            "return x.double() if torch.jit.is_scripting() else x",
            r"torch\.float64 \[1, 1\], the eager model gives torch\.float32",
        ),
        ("return x[:1] if torch.jit.is_scripting() else x", r"batch 2, output: torch\.float32 \[1, 1\], .* baked in"),
        (
            "return x + 0.01 if torch.jit.is_scripting() else x",
            r"up to 0\.01 absolute, .* allowed are atol 1e-05, rtol 0\.0001",
        ),
    ],
    ids=["dropout left on", "another type", "a batch size baked in", "a small shift"],
)
def test_an_export_that_differs_stops_the_run_and_leaves_nothing_published(
    run: Export, tmp_path: Path, body: str, told: str
) -> None:
    with pytest.raises(ParityError, match=told):
        run(NET.format(body))
    assert [] == [*(tmp_path / "run" / "export").iterdir()]


@IGNORE_TRACER
def test_a_branch_that_a_trace_froze_is_found(run: Export) -> None:
    """Batches of 1 and 2 begin with two dark samples and take the traced branch; the batch of 7 does not."""
    with pytest.raises(ParityError, match=r"exported, batch 7, output: differs from the eager model by up to [\d.]+ absolute"):
        run(BRANCHING_UNSCRIPTABLE)


@IGNORE_TRACER
def test_a_branch_that_only_a_golden_pair_takes_is_found_too(run: Export) -> None:
    with pytest.raises(ParityError, match=r"golden pair 200\.png, eager against exported: answer\.output\[0\]: expected 1\.13"):
        run(BRANCHING_UNSCRIPTABLE, batch_sizes=(1, 2))


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
