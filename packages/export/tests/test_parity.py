"""Comparing answers, and answering in a fresh process."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from marline.core import ExportConfig, ParityError
from marline.export import _parity
from marline.export._parity import batch_of, compare, named, reloaded
from marline.export._torchscript import save, to_torchscript

CONFIG = ExportConfig(method="auto", atol=1e-3, rtol=1e-3, batch_sizes=(1,))
RELOAD = Path(_parity.__file__).with_name("_reload.py")
# Runs the script as a program, then says which of these it has imported.
WATCHED = (
    "import json, runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
    "print(json.dumps([name for name in ('marline', 'transformers', 'torchvision', 'ts', 'PIL') if name in sys.modules]))"
)


class Pair(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, x + 1


def test_rows_carry_the_largest_difference_of_each_output() -> None:
    expected = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([4.0])}
    got = {"a": torch.tensor([1.0, 2.001]), "b": torch.tensor([4.0])}

    rows = compare(expected, got, "exported", 2, CONFIG)

    assert [("a", 2), ("b", 2)] == [(row.output, row.batch) for row in rows]
    assert pytest.approx(1e-3, rel=1e-2) == rows[0].max_abs
    assert pytest.approx(5e-4, rel=1e-2) == rows[0].max_rel
    assert 0.0 == rows[1].max_abs


@given(st.floats(-100, 100), st.floats(-1, 1))
def test_a_difference_is_refused_exactly_beyond_the_tolerance(value: float, off: float) -> None:
    expected, got = torch.tensor([value], dtype=torch.float64), torch.tensor([value + off], dtype=torch.float64)
    allowed = CONFIG.atol + CONFIG.rtol * min(abs(value), abs(value + off))

    if abs(off) < allowed * 0.99:
        assert 1 == len(compare(expected, got, "exported", 1, CONFIG))
    elif abs(off) > (CONFIG.atol + CONFIG.rtol * max(abs(value), abs(value + off))) * 1.01:
        with pytest.raises(ParityError, match=r"allowed are atol 0\.001, rtol 0\.001"):
            compare(expected, got, "exported", 1, CONFIG)


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ([float("nan")], [float("nan")]),
        ([float("inf")], [float("inf")]),
        ([1.0], [float("nan")]),
        ([1.0], [float("inf")]),
    ],
)
def test_what_is_not_finite_is_never_equal(expected: list[float], got: list[float]) -> None:
    with pytest.raises(ParityError, match=r"differs from the eager model by up to (nan|inf)"):
        compare(torch.tensor(expected), torch.tensor(got), "exported", 1, CONFIG)


@pytest.mark.parametrize(
    ("got", "told"),
    [
        (torch.ones(2, 3), r"outputs are \['output'\], the eager model gives \['output\[0\]', 'output\[1\]'\]"),
        ((torch.ones(2, 3), torch.ones(1, 3)), r"output\[1\]: torch\.float32 \[1, 3\], the eager model gives .*\[2, 3\]"),
        (
            (torch.ones(2, 3), torch.ones(2, 3).half()),
            r"output\[1\]: torch\.float16 \[2, 3\], the eager model gives torch\.float32",
        ),
    ],
)
def test_another_shape_type_or_number_of_outputs_is_refused(got: Any, told: str) -> None:
    with pytest.raises(ParityError, match=told):
        compare((torch.ones(2, 3), torch.ones(2, 3)), got, "exported", 2, CONFIG)


def test_outputs_are_named_whatever_their_structure() -> None:
    one = torch.ones(1)

    assert [["output"], ["logits"], ["output[0]", "output[1]"]] == [[*named(out)] for out in (one, {"logits": one}, (one, one))]


def test_a_batch_takes_the_samples_in_turn() -> None:
    samples = [torch.tensor([float(value)]) for value in range(3)]

    (batch,) = batch_of(samples, 5)

    assert [[0.0], [1.0], [2.0], [0.0], [1.0]] == batch.tolist()


def test_sequences_of_different_lengths_are_padded_to_one_batch() -> None:
    samples = [{"ids": torch.tensor([5, 6, 7]), "mask": torch.ones(3)}, {"ids": torch.tensor([8]), "mask": torch.ones(1)}]

    ids, mask = batch_of(samples, 2)

    assert [[5, 6, 7], [8, 0, 0]] == ids.tolist()
    assert [[1, 1, 1], [1, 0, 0]] == mask.tolist()


def test_a_fresh_process_answers_like_this_one_for_every_batch_and_output(tmp_path: Path) -> None:
    batch = torch.tensor([[1.0], [2.0], [3.0]])
    save(to_torchscript(Pair().eval(), (batch,), "script").module, tmp_path / "model.pt")

    answers = reloaded(tmp_path / "model.pt", {"1": (batch[:1].clone(),), "3": (batch,)}, tmp_path)

    assert {"1/output[0]", "1/output[1]", "3/output[0]", "3/output[1]"} == set(answers)
    assert torch.equal(batch * 2, answers["3/output[0]"])
    assert torch.equal(batch[:1] + 1, answers["1/output[1]"])


def test_the_fresh_process_has_torch_and_nothing_of_the_models_library(tmp_path: Path) -> None:
    batch = torch.ones(2, 1)
    save(to_torchscript(torch.nn.ReLU().eval(), (batch,), "script").module, tmp_path / "model.pt")
    save_file({"2/0": batch}, tmp_path / "asked.safetensors")
    words = [RELOAD, tmp_path / "model.pt", tmp_path / "asked.safetensors", tmp_path / "answered.safetensors"]

    done = subprocess.run(
        [sys.executable, "-I", "-c", WATCHED, *map(str, words)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert [] == json.loads(done.stdout)
    assert "" == done.stderr
    imported = [node for node in ast.walk(ast.parse(RELOAD.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert {"sys", "warnings", "torch", "safetensors.torch"} == {
        getattr(node, "module", None) or node.names[0].name for node in imported
    }


def test_a_file_that_cannot_be_loaded_there_is_refused_with_what_was_said(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no archive")

    with pytest.raises(ParityError, match=r"model\.pt cannot be loaded and run in a fresh process:\n[\s\S]*RuntimeError"):
        reloaded(tmp_path / "model.pt", {"1": (torch.ones(1, 1),)}, tmp_path)
