"""What a user reads of each module in the gallery. `MARLINE_APPROVE=1 nox -s unit -- -k gallery` writes the messages anew."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marline.core import ExportConfig, ExportError, ParityError, import_file
from marline.export._graph import prove_graph

APPROVED = Path(__file__).parent / "approved"
SEEDED = torch.Generator().manual_seed(0)
ROWS = [torch.randn(4, generator=SEEDED) + 1 for _ in range(5)]
WORDS = [torch.randint(0, 50, (length,), generator=SEEDED) for length in (5, 9, 12)]
GALLERY: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "BakedBatch": (ROWS, {"method": "trace"}),
    "BakedLength": (WORDS, {"method": "trace"}),
    "BakedDevice": (ROWS, {}),
    "FrozenBranch": (ROWS, {"method": "trace"}),
    "RareBranch": (ROWS, {"method": "trace"}),
    "BranchBySize": (ROWS, {"method": "trace"}),
    "BranchByNumpy": (ROWS, {"method": "trace"}),
    "DropoutLeftOn": (ROWS, {}),
    "StaysInTraining": (ROWS, {}),
    "BatchNormInTraining": (ROWS, {}),
    "NestedFunction": (ROWS, {"method": "script"}),
    "NumpyInForward": (ROWS, {}),
    "UntypedList": (ROWS, {"method": "script"}),
    "MissingHint": (ROWS, {"method": "script"}),
    "VariableArguments": (ROWS, {"method": "script"}),
    "MissingReturn": (ROWS, {"method": "script"}),
    "SetOfLabels": (ROWS, {"method": "script"}),
    "TriesFirst": (ROWS, {"method": "script"}),
    "WrongType": (ROWS, {"method": "script"}),
    "InPlace": (ROWS, {}),
    "RandomNumbers": (ROWS, {}),
    "AnswersNan": (ROWS, {}),
    "GlobalState": (ROWS, {}),
    "OwnState": (ROWS, {}),
}
MODULES = import_file(Path(__file__).with_name("gallery.py"))
Config = Callable[..., ExportConfig]


@pytest.mark.parametrize("name", GALLERY)
def test_it_is_refused_with_the_approved_message(name: str, export_config: Config, tmp_path: Path) -> None:
    samples, changed = GALLERY[name]
    torch.manual_seed(0)

    with pytest.raises((ExportError, ParityError)) as refused:
        prove_graph(getattr(MODULES, name)(), samples, export_config(**changed), tmp_path / "model.pt")

    said = f"{type(refused.value).__name__}: {_without_numbers(str(refused.value))}\n"
    file = APPROVED / f"{name}.txt"
    if os.environ.get("MARLINE_APPROVE"):
        file.write_text(said)
    assert file.read_text() == said
    assert [] == [*tmp_path.iterdir()]


def test_every_approved_message_is_of_a_module() -> None:
    assert {f"{name}.txt" for name in GALLERY} == {file.name for file in APPROVED.iterdir()}


def _without_numbers(text: str) -> str:
    """Differences depend on the processor's rounding; lines of this file and settings do not."""
    return re.sub(r"up to [\d.e+-]+ absolute, [\d.e+-]+ relative", "up to X absolute, Y relative", text)
