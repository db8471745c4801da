"""Proves that what was exported answers like the eager model, here and after loading in a fresh process."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from marline.core import ExportConfig, ParityError
from marline.handler import Sample, collate

RELOAD_S = 120.0


@dataclass(frozen=True, slots=True)
class Row:
    """The largest difference of one output at one batch size."""

    stage: str  # exported | reloaded in a fresh process
    batch: int
    output: str
    max_abs: float
    max_rel: float


def batch_of(samples: Sequence[Sample], size: int) -> tuple[torch.Tensor, ...]:
    """The model's arguments for `size` samples taken in turn, each [size, ...]."""
    return collate([samples[index % len(samples)] for index in range(size)])


def named(output: Any) -> dict[str, torch.Tensor]:
    """The tensors of an output by name, whatever its structure."""
    if isinstance(output, torch.Tensor):
        return {"output": output.detach()}
    if isinstance(output, Mapping):
        return {key: value.detach() for key, value in output.items()}
    return {f"output[{index}]": value.detach() for index, value in enumerate(output)}


def compare(expected: Any, got: Any, where: str, batch: int, config: ExportConfig) -> list[Row]:
    """One row per output; ParityError naming the output that is further off than atol + rtol x |expected|."""
    left, right = named(expected), named(got)
    if left.keys() != right.keys():
        raise ParityError(f"{where}, batch {batch}: outputs are {sorted(right)}, the eager model gives {sorted(left)}")
    rows = []
    for name, value in left.items():
        other = right[name]
        if value.shape != other.shape or value.dtype != other.dtype:
            raise ParityError(
                f"{where}, batch {batch}, {name}: {other.dtype} {list(other.shape)}, the eager model gives {value.dtype} "
                f"{list(value.shape)}; the export has a batch size or type baked in"
            )
        off = (value - other).abs()
        row = Row(where, batch, name, off.max().item(), (off / value.abs().clamp_min(1e-12)).max().item())
        if not torch.isfinite(value).all() or not torch.allclose(value, other, atol=config.atol, rtol=config.rtol):
            raise ParityError(
                f"{where}, batch {batch}, {name}: differs from the eager model by up to {row.max_abs:.3g} absolute, "
                f"{row.max_rel:.3g} relative; allowed are atol {config.atol:g}, rtol {config.rtol:g}. Nothing was published"
            )
        rows.append(row)
    return rows


def reloaded(file: Path, batches: Mapping[str, tuple[torch.Tensor, ...]], folder: Path) -> dict[str, torch.Tensor]:
    """Answers of the exported file to each batch in a fresh process that imports torch alone; keys are `batch/output`."""
    asked, answered = folder / "asked.safetensors", folder / "answered.safetensors"
    save_file({f"{key}/{place}": one for key, batch in batches.items() for place, one in enumerate(batch)}, asked)
    words = [sys.executable, "-I", str(Path(__file__).with_name("_reload.py")), str(file), str(asked), str(answered)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=RELOAD_S, check=False)
    if done.returncode:
        raise ParityError(f"{file.name} cannot be loaded and run in a fresh process:\n{done.stderr.strip()[-2000:]}")
    return load_file(answered)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows as JSON values."""
    return [asdict(row) for row in rows]
