"""Stage 3: from the untracked base model to TorchScript that is proven equal, with golden pairs."""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from marline.core import ExportConfig, Manifest, ParityError, StageError, progress, seal, write_json
from marline.export._base import load_base
from marline.export._parity import Row, as_json, batch_of, compare, named, reloaded
from marline.export._torchscript import load, save, to_torchscript
from marline.handler import FakeContext, Pair, assemble, difference, opened, write_golden


def export(model: str, config: ExportConfig, loaded: Manifest, wrapped: Manifest, handler: Path, out: Path) -> Manifest:
    """Write `model.pt`, `parity.json` and `golden.json`; ParityError where eager and exported differ."""
    started = time.monotonic()
    repository = wrapped.path("repository")
    samples = sorted(loaded.path("sample").iterdir())
    base = load_base(repository, wrapped.facts["base_class"], wrapped.facts.get("exported_module"))
    with tempfile.TemporaryDirectory(prefix="marline-") as work:
        folder = Path(work)
        assemble(handler, repository, folder)
        with opened(folder, handler.stem) as instance:
            progress(0.1, "asking the eager model")
            pairs, tensors = _golden(instance, base, samples)
            progress(0.2, "making TorchScript")
            exported = to_torchscript(base, batch_of(tensors, 2), config.method)
            save(exported.module, out / "model.pt")
            rows = _prove(base, out / "model.pt", exported.module, tensors, config, folder)
            progress(0.9, "asking the golden pairs again")
            _same_answers(instance, load(out / "model.pt"), pairs, config)
    write_golden(out / "golden.json", pairs)
    write_json(out / "parity.json", {"atol": config.atol, "rtol": config.rtol, "rows": as_json(rows)})
    facts = {
        "method": exported.method,
        "reason": exported.reason,
        "parity": as_json(rows),
        "golden": len(pairs),
        "atol": config.atol,
        "rtol": config.rtol,
        "input": {"shape": list(tensors[0].shape), "dtype": str(tensors[0].dtype).removeprefix("torch.")},
    }
    return seal(out, model=model, config=config, inputs=[loaded, wrapped], facts=facts, started=started)


def _golden(instance: Any, base: nn.Module, samples: Sequence[Path]) -> tuple[list[Pair], list[torch.Tensor]]:
    """Each sample's answer by the eager model through the handler that will be shipped, and its input tensor."""
    seen: list[torch.Tensor] = []

    def eager(batch: torch.Tensor) -> Any:
        seen.extend(batch)
        return base(batch)

    instance.model = eager
    pairs = [Pair(file.name, file.read_bytes(), _answer(instance, file.read_bytes(), file.name)) for file in samples]
    return pairs, seen


def _answer(instance: Any, request: bytes, name: str) -> Any:
    context = FakeContext(Path())
    text = instance.handle([{"body": request}], context)[0]
    if context.statuses:
        why = f"{type(instance.error).__name__}: {instance.error}"
        raise StageError(
            f"the sample {name} gets no answer: {why}; see load.samples, the handler and the model"
        ) from instance.error
    return json.loads(text)


def _prove(
    base: nn.Module, file: Path, module: Any, tensors: Sequence[torch.Tensor], config: ExportConfig, folder: Path
) -> list[Row]:
    """Parity at every batch size: the module in memory, and the saved file in a fresh process."""
    batches = {str(size): batch_of(tensors, size) for size in config.batch_sizes}
    rows, expected = [], {}
    for size, batch in batches.items():
        progress(0.4, f"comparing batches of {size}")
        with torch.inference_mode():
            expected[size] = named(base(batch))
            rows += compare(expected[size], module(batch), "exported", int(size), config)
    progress(0.5, "loading it in a fresh process")
    fresh = reloaded(file, batches, folder)
    for size, outputs in expected.items():
        again = {name: fresh[f"{size}/{name}"] for name in outputs if f"{size}/{name}" in fresh}
        rows += compare(outputs, again, "reloaded", int(size), config)
    return rows


def _same_answers(instance: Any, module: Any, pairs: Sequence[Pair], config: ExportConfig) -> None:
    instance.model = module
    for pair in pairs:
        found = difference(pair.answer, _answer(instance, pair.request, pair.name), atol=config.atol, rtol=config.rtol)
        if found is not None:
            raise ParityError(f"golden pair {pair.name}, eager against exported: {found}. Nothing was published")
