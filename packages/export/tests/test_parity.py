"""Comparing answers, the cases that are compared, and answering where nothing of ours is."""

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

from marline.core import ParityError
from marline.export import _elsewhere
from marline.export._cases import calls_of, cases_of
from marline.export._elsewhere import Call, cpp_program, in_cpp, in_python
from marline.export._parity import Tolerance, compare, named, narrowed, widened, worst
from marline.export._torchscript import save, script

ALLOWED = Tolerance(1e-3, 1e-3)
RELOAD = Path(_elsewhere.__file__).with_name("_reload.py")
TOLD = {"a fresh Python": "a fresh process", "C++": r"C\+\+"}
# Runs the script as a program, then says which of these it has imported.
WATCHED = (
    "import json, runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__'); "
    "print(json.dumps([name for name in ('marline', 'transformers', 'torchvision', 'ts', 'PIL') if name in sys.modules]))"
)


class Pair(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, x + 1

    @torch.jit.export
    def drawn(self, x: torch.Tensor, times: int) -> dict[str, list[torch.Tensor]]:
        return {"drawn": [x + torch.rand_like(x) for _ in range(times)]}


def answers_there(where: str, file: Path, calls: list[Call], folder: Path) -> list[Any]:
    """What a fresh Python, or the C++ program, answers."""
    if where == "a fresh Python":
        return in_python(file, calls, [], folder)
    program = cpp_program(folder)
    if isinstance(program, str):
        pytest.skip(program)
    return in_cpp(program, file, calls, folder)


def test_rows_carry_the_largest_difference_of_each_output() -> None:
    expected = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([4.0])}
    got = {"a": torch.tensor([1.0, 2.001]), "b": torch.tensor([4.0])}

    rows = compare(expected, got, "exported", "batch 2", 2, ALLOWED)

    assert [("a", 2), ("b", 2)] == [(row.output, row.batch) for row in rows]
    assert pytest.approx(1e-3, rel=1e-2) == rows[0].max_abs
    assert pytest.approx(5e-4, rel=1e-2) == rows[0].max_rel
    assert 0.0 == rows[1].max_abs


@given(st.floats(-100, 100), st.floats(-1, 1))
def test_a_difference_is_refused_exactly_beyond_the_tolerance(value: float, off: float) -> None:
    expected, got = torch.tensor([value], dtype=torch.float64), torch.tensor([value + off], dtype=torch.float64)
    allowed = ALLOWED.atol + ALLOWED.rtol * abs(value)

    if abs(off) < allowed * 0.99:
        assert 1 == len(compare(expected, got, "exported", "batch 1", 1, ALLOWED))
    elif abs(off) > allowed * 1.01:
        with pytest.raises(ParityError, match=r"allowed are atol 0\.001, rtol 0\.001"):
            compare(expected, got, "exported", "batch 1", 1, ALLOWED)


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
        compare(torch.tensor(expected), torch.tensor(got), "exported", "batch 1", 1, ALLOWED)


@pytest.mark.parametrize(
    ("got", "told"),
    [
        (torch.ones(2, 3), r"outputs are output, the eager model gives output\[0\], output\[1\]"),
        ((torch.ones(2, 3), torch.ones(1, 3)), r"output\[1\]: float32 \[1, 3\], the eager model gives .*\[2, 3\]; .* baked in"),
        (
            (torch.ones(2, 3), torch.ones(2, 3).half()),
            r"output\[1\]: float16 \[2, 3\], the eager model gives float32",
        ),
    ],
)
def test_another_shape_type_or_number_of_outputs_is_refused(got: Any, told: str) -> None:
    with pytest.raises(ParityError, match=told):
        compare((torch.ones(2, 3), torch.ones(2, 3)), got, "exported", "batch 2", 2, ALLOWED)


def test_outputs_are_named_whatever_their_structure() -> None:
    one = torch.ones(1)
    nested = [(one, {"a": one}), {"b": [one, one]}, 3]

    assert [["output"], ["logits"], ["output[0]", "output[1]"]] == [[*named(out)] for out in (one, {"logits": one}, (one, one))]
    assert ["output[0][0]", "output[0][1].a", "output[1].b[0]", "output[1].b[1]", "output[2]"] == [*named(nested)]


def test_of_each_case_the_worst_output_is_told() -> None:
    got = {"a": torch.tensor([1.0005]), "b": torch.tensor([1.0001])}

    rows = compare({"a": torch.ones(1), "b": torch.ones(1)}, got, "frozen", "batch 1", 1, ALLOWED)

    assert ["a"] == [row.output for row in worst(rows)]


@pytest.mark.parametrize(("dtype", "least"), [("float32", 1e-3), ("float16", 0.01), ("bfloat16", 0.05)])
def test_halves_may_differ_by_their_rounding(dtype: str, least: float) -> None:
    assert Tolerance(least, least) == ALLOWED.at(dtype)
    assert Tolerance(1.0, 1.0) == Tolerance(1.0, 1.0).at(dtype)


def test_only_floats_are_converted_and_halves_come_back_as_floats() -> None:
    given = (torch.ones(1), torch.ones(1, dtype=torch.int64), [torch.ones(1)])

    values, ids, several = narrowed(given, "bfloat16")

    assert [torch.bfloat16, torch.int64, torch.bfloat16] == [values.dtype, ids.dtype, several[0].dtype]
    assert torch.float32 == widened({"a": (values,)})["a"][0].dtype


def test_a_batch_takes_the_samples_in_turn() -> None:
    case = cases_of([torch.tensor([float(value)]) for value in range(3)], [5])[0]

    assert ("batch 5", 5, True) == (case.name, case.batch, case.demanded)
    assert [[0.0], [1.0], [2.0], [0.0], [1.0]] == case.arguments[0].tolist()


def test_sequences_are_cut_to_other_lengths_with_their_mask() -> None:
    samples = [{"ids": torch.arange(1, 9), "mask": torch.ones(8)}, {"ids": torch.tensor([8]), "mask": torch.ones(1)}]

    found = {case.name: case for case in cases_of(samples, [2])}
    ids, mask = found["batch 3, length 4"].arguments

    assert ["batch 3, length 2", "batch 3, length 4", "batch 3, length 7"] == [name for name in found if "length" in name]
    assert [[1, 2, 3, 4], [8, 0, 0, 0], [1, 2, 3, 4]] == ids.tolist()
    assert [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]] == mask.tolist()
    assert not found["batch 3, length 4"].demanded


def test_features_of_a_fixed_number_are_not_cut() -> None:
    assert not [case.name for case in cases_of([torch.rand(8), torch.rand(8)], [1]) if "length" in case.name]


def test_another_method_is_called_with_the_inputs_that_it_names() -> None:
    sample = {"x": torch.ones(2), "unused": torch.ones(1)}

    found = calls_of(Pair(), [sample], {"drawn": [{"times": 2}]})

    assert ["drawn(times=2), batch 1", "drawn(times=2), batch 2"] == [case.name for case in found]
    assert [[1, 2], [2, 2]] == [list(case.arguments[0].shape) for case in found]
    assert {1} == {len(case.arguments) for case in found}


@pytest.mark.parametrize("where", ["a fresh Python", "C++"])
def test_another_process_answers_like_this_one(where: str, tmp_path: Path) -> None:
    batch, one = torch.tensor([[1.0], [2.0], [3.0]]), torch.ones(1, 1)
    save(script(Pair().eval()), tmp_path / "model.pt", {})
    calls: list[Call] = [("forward", (batch,), {}), ("forward", (one,), {}), ("drawn", (one,), {"times": 2})]

    both, single, drawn = answers_there(where, tmp_path / "model.pt", calls, tmp_path)

    torch.manual_seed(0)
    assert [(batch * 2).tolist(), (batch + 1).tolist()] == [value.tolist() for value in both]
    assert [[[2.0]], [[2.0]]] == [value.tolist() for value in single]
    assert [(one + torch.rand(1, 1)).tolist() for _ in range(2)] == [value.tolist() for value in drawn["drawn"]]


def test_the_fresh_process_has_torch_and_nothing_of_the_models_library(tmp_path: Path) -> None:
    save(script(torch.nn.ReLU().eval()), tmp_path / "model.pt", {})
    torch.save([("forward", (torch.ones(2, 1),), {})], tmp_path / "asked.pt")
    words = [RELOAD, tmp_path / "model.pt", tmp_path / "asked.pt", tmp_path / "answered.pt"]

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
    assert {"gc", "importlib", "sys", "warnings", "typing", "torch"} == {
        getattr(node, "module", None) or node.names[0].name for node in imported
    }


@pytest.mark.parametrize("where", ["a fresh Python", "C++"])
def test_a_file_that_cannot_be_loaded_there_is_refused_with_what_was_said(where: str, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no archive")

    with pytest.raises(ParityError, match=rf"model\.pt cannot be loaded and run in {TOLD[where]}:\n[\s\S]*archive"):
        answers_there(where, tmp_path / "model.pt", [("forward", (torch.ones(1, 1),), {})], tmp_path)


def test_without_a_compiler_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "there is no C++ compiler on this machine (apt install g++)" == cpp_program(tmp_path)
