"""Stage 3: from the untracked base model to TorchScript that is proven equal, with golden pairs."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from marline.core import ExportConfig, Manifest, ParityError, StageError, progress, seal, write_json
from marline.export._base import load_base
from marline.export._parity import Row, as_json, batch_of, compare, named, reloaded
from marline.export._positional import Positional
from marline.export._preparation import check_preparation
from marline.export._torchscript import load, save, to_torchscript
from marline.handler import FakeContext, Pair, Sample, assemble, difference, opened, write_golden


def export(model: str, config: ExportConfig, loaded: Manifest, wrapped: Manifest, handler: Path, out: Path) -> Manifest:
    """Write `model.pt`, `parity.json` and `golden.json`; ParityError where eager and exported differ."""
    started = time.monotonic()
    repository = wrapped.path("repository")
    samples = sorted(loaded.path("sample").iterdir())
    with tempfile.TemporaryDirectory(dir=out, prefix=".staged-") as work:  # until all is proven
        folder = Path(work)
        assemble(handler, repository, folder)
        with opened(folder, handler.stem) as instance:
            inputs = [_input(instance, file) for file in samples]
            check_preparation(handler, wrapped, samples, inputs)
            base = _base(wrapped, repository, inputs[0])
            progress(0.1, "asking the eager model")
            instance.model = base
            pairs = [Pair(file.name, file.read_bytes(), _answers(instance, [file])[0]) for file in samples]
            progress(0.2, "making TorchScript")
            exported = to_torchscript(base, batch_of(inputs, 2), config.method)
            save(exported.module, folder / "model.pt")
            rows = _prove(base, folder / "model.pt", exported.module, inputs, config, folder)
            progress(0.9, "asking the golden pairs again")
            instance.model = load(folder / "model.pt")
            _same_answers(instance, samples, pairs, config)
        (folder / "model.pt").rename(out / "model.pt")
    write_golden(out / "golden.json", pairs)
    write_json(out / "parity.json", {"atol": config.atol, "rtol": config.rtol, "rows": as_json(rows)})
    facts = {
        "method": exported.method,
        "reason": exported.reason,
        "parity": as_json(rows),
        "golden": len(pairs),
        "atol": config.atol,
        "rtol": config.rtol,
        "input": _told(inputs[0]),
    }
    return seal(out, model=model, config=config, inputs=[loaded, wrapped], facts=facts, started=started)


def _base(wrapped: Manifest, repository: Path, sample: Sample) -> nn.Module:
    """What is exported: TorchScript that was given, or the untracked base, whose arguments are those of the samples."""
    if wrapped.facts.get("kind") == "torchscript":
        return load(repository / "model.pt")
    base = load_base(repository, wrapped.facts["base_class"], wrapped.facts.get("exported_module"))
    if wrapped.facts.get("kind") != "transformers":
        return base
    return Positional(base, list(sample) if isinstance(sample, Mapping) else [str(base.main_input_name)]).eval()


def _input(instance: Any, file: Path) -> Sample:
    try:
        sample: Sample = instance.sample({"body": file.read_bytes()})
    except Exception as error:  # the handler is the user's code
        raise _unanswered(file, error) from error
    return sample


def _answers(instance: Any, files: Sequence[Path]) -> list[Any]:
    """What the handler answers to the files as one batch."""
    context = FakeContext(Path())
    texts = instance.handle([{"body": file.read_bytes()} for file in files], context)
    for index in context.statuses:
        raise _unanswered(files[index], instance.error) from instance.error
    return [json.loads(text) for text in texts]


def _unanswered(file: Path, error: Exception) -> StageError:
    why = f"{type(error).__name__}: {error}"
    return StageError(f"the sample {file.name} gets no answer: {why}; see load.samples, the handler and the model")


def _prove(base: nn.Module, file: Path, module: Any, inputs: Sequence[Sample], config: ExportConfig, folder: Path) -> list[Row]:
    """Parity at every batch size: the module in memory, and the saved file in a fresh process."""
    batches = {str(size): batch_of(inputs, size) for size in config.batch_sizes}
    rows, expected = [], {}
    for size, batch in batches.items():
        progress(0.4, f"comparing batches of {size}")
        with torch.inference_mode():
            expected[size] = named(base(*batch))
            rows += compare(expected[size], module(*batch), "exported", int(size), config)
    progress(0.5, "loading it in a fresh process")
    fresh = reloaded(file, batches, folder)
    for size, outputs in expected.items():
        again = {name: fresh[f"{size}/{name}"] for name in outputs if f"{size}/{name}" in fresh}
        rows += compare(outputs, again, "reloaded", int(size), config)
    return rows


def _same_answers(instance: Any, samples: Sequence[Path], pairs: Sequence[Pair], config: ExportConfig) -> None:
    """Each sample gets its answer alone, and in a batch with others, where padding may matter."""
    alone = [_answers(instance, [file])[0] for file in samples]
    together = _answers(instance, samples[: max(config.batch_sizes)])
    for answers, how in ((alone, "eager against exported"), (together, "alone against in a batch with others")):
        for pair, answer in zip(pairs, answers, strict=False):
            found = difference(pair.answer, answer, atol=config.atol, rtol=config.rtol)
            if found is not None:
                raise ParityError(f"golden pair {pair.name}, {how}: {found}. Nothing was published")


def _told(sample: Sample) -> dict[str, Any]:
    """A sample's shape and type; of several tensors by name."""
    if isinstance(sample, Mapping):
        return {name: _told(tensor) for name, tensor in sample.items()}
    return {"shape": list(sample.shape), "dtype": str(sample.dtype).removeprefix("torch.")}
