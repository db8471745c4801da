"""Stage 3: from the untracked base model to TorchScript that is proven equal, with golden pairs."""

import base64
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from marline.core import ExportConfig, ExportError, Manifest, ParityError, RequestError, StageError, progress, seal, write_json
from marline.export._folding import fold
from marline.export._from_scratch import facts_of, golden_of
from marline.export._graph import Proven, prove_graph
from marline.export._making import wholly
from marline.export._parity import Tolerance, as_json, worst
from marline.export._preparation import check_preparation
from marline.export._torchscript import load
from marline.handler import (
    EAGER,
    FakeContext,
    Pair,
    Positional,
    Sample,
    adapted,
    assemble,
    difference,
    load_base,
    opened,
    write_golden,
)

ALONE = "whether neighbours in a batch change an answer: there is one sample; give more with load.samples"
EAGERLY = (
    "export.method=none: the eager model is served, slower and with all that it imports; its weights travel as safetensors"
)


def export(model: str, config: ExportConfig, loaded: Manifest, wrapped: Manifest, handler: Path, out: Path) -> Manifest:
    """Write `model.pt`, `parity.json` and `golden.json`; ParityError where eager and exported differ.

    With `export.method=none` there is no `model.pt`, but `eager.json`, which says how to build the eager model. Of a handler
    from scratch there are golden pairs alone.
    """
    started = time.monotonic()
    if wrapped.facts.get("kind") == "handler":
        return _without_a_module(model, config, loaded, wrapped, handler, out, started)
    if config.method == "none":
        _refuse_idle(config, wrapped)
    samples = sorted(loaded.path("sample").iterdir())
    tolerance = Tolerance(config.atol, config.rtol).at(config.dtype)
    with tempfile.TemporaryDirectory(dir=out, prefix=".staged-") as work:  # until all is proven
        folder = Path(work)
        assemble(handler, wrapped.path("repository"), folder)
        with opened(folder, handler.stem) as instance:
            inputs = inputs_of(instance, samples)
            check_preparation(handler, wrapped, samples, inputs)
        base = base_of(wrapped, inputs[0])
        module = wholly(base, config)
        if config.fold:
            module = fold(module, handler, folder)
        with opened(folder, handler.stem) as instance:
            inputs = inputs_of(instance, samples)
            progress(0.1, "asking the eager model")
            serve = _served(config, module)
            instance.take(module, {}, serve)
            pairs = [Pair(file.name, file.read_bytes(), _answers(instance, [file])[0]) for file in samples]
            proven = None
            if config.method != "none":
                with in_users_file(loaded):
                    gather, request = instance.functions.collate, _example(samples)
                    proven = prove_graph(module, inputs, config, folder / "model.pt", gather, request)
                instance.take(load(folder / "model.pt"), proven.signature, serve)
            progress(0.9, "asking the golden pairs again")
            _same_answers(instance, samples, pairs, config, tolerance)
        _publish(folder, out, proven, wrapped, base, config)
    write_golden(out / "golden.json", pairs)
    facts = _facts(proven, tolerance, samples) | {"golden": len(pairs), "input": _told(inputs[0]), "serve": serve}
    write_json(out / "parity.json", {**facts, "rows": as_json(proven.rows) if proven else []})
    return seal(out, model=model, config=config, inputs=[loaded, wrapped], facts=facts, started=started)


def _without_a_module(
    model: str, config: ExportConfig, loaded: Manifest, wrapped: Manifest, handler: Path, out: Path, started: float
) -> Manifest:
    samples = sorted(loaded.path("sample").iterdir())
    with tempfile.TemporaryDirectory(dir=out, prefix=".staged-") as work:
        pairs = golden_of(model, config, wrapped, handler, samples, Path(work))
    write_golden(out / "golden.json", pairs)
    facts = facts_of(config, samples) | {"golden": len(pairs), "skipped": [ALONE] if len(samples) == 1 else []}
    write_json(out / "parity.json", {**facts, "rows": []})
    return seal(out, model=model, config=config, inputs=[loaded, wrapped], facts=facts, started=started)


def base_of(wrapped: Manifest, sample: Sample) -> nn.Module:
    """What is exported: TorchScript that was given, or the untracked base, whose arguments are those of the samples."""
    repository = wrapped.path("repository")
    if wrapped.facts.get("kind") == "torchscript":
        return load(repository / "model.pt")
    base = load_base(repository, wrapped.facts["base_class"], wrapped.facts.get("exported_module"))
    return adapted(base, _names(wrapped, sample, base))


@contextmanager
def in_users_file(loaded: Manifest) -> Iterator[None]:
    """Errors inside name the user's own Python file in place of its copy in the repository."""
    kind, _, rest = str(loaded.facts.get("source", "")).partition(":")
    try:
        yield
    except (ExportError, ParityError) as error:
        if kind != "python":
            raise
        file = rest.rpartition(":")[0]
        raise type(error)(re.sub(r"\S*\bsource_\w+\.py(?=:\d)", lambda _: file, str(error))) from error


def _names(wrapped: Manifest, sample: Sample, base: Any) -> list[str] | None:
    if wrapped.facts.get("kind") != "transformers":
        return None
    return list(sample) if isinstance(sample, Mapping) else [str(base.main_input_name)]


def inputs_of(instance: Any, samples: Sequence[Path]) -> list[Sample]:
    """What the model gets for each sample; StageError where the handler cannot read one."""
    return [_input(instance, file) for file in samples]


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


def _same_answers(
    instance: Any, samples: Sequence[Path], pairs: Sequence[Pair], config: ExportConfig, tolerance: Tolerance
) -> None:
    """Each sample gets its answer alone, and in a batch with others, where padding may matter."""
    alone = [_answers(instance, [file])[0] for file in samples]
    together = _answers(instance, samples[: max(config.batch_sizes)])
    for answers, how in ((alone, "eager against exported"), (together, "alone against in a batch with others")):
        for pair, answer in zip(pairs, answers, strict=False):
            found = difference(pair.answer, answer, atol=tolerance.atol, rtol=tolerance.rtol)
            if found is not None:
                raise ParityError(f"golden pair {pair.name}, {how}: {found}. Nothing was published")


def _refuse_idle(config: ExportConfig, wrapped: Manifest) -> None:
    """RequestError where no graph is asked for and something that only a graph can have, or there is no eager model."""
    idle = {
        "whole": config.whole is not None,
        "fold": config.fold,
        "dtype": config.dtype != "float32",
        "calls": bool(config.calls),
    }
    if named := [f"export.{name}" for name, is_set in idle.items() if is_set]:
        raise RequestError(f"{', '.join(named)} has no effect with export.method=none, which makes no graph; leave it out")
    if wrapped.facts.get("kind") == "torchscript":
        raise RequestError("export.method=none has no eager model to serve: the source is TorchScript; leave it out")


def _served(config: ExportConfig, module: nn.Module) -> dict[str, Any]:
    """The section `handler` of the archive's model config; RequestError where the model has no such method."""
    if config.serve is None:
        return {}
    if not callable(getattr(module, config.serve.method, None)):
        raise RequestError(f"export.serve.method={config.serve.method}: {type(module).__name__} has no such method")
    return config.serve.model_dump()


def _publish(folder: Path, out: Path, proven: Proven | None, wrapped: Manifest, base: nn.Module, config: ExportConfig) -> None:
    """Move what is proven to its place, or say how the eager model is built."""
    if proven is not None:
        proven.file.rename(out / proven.file.name)
        if config.fold:
            (folder / "preprocessor_config.json").rename(out / "preprocessor_config.json")
    if wrapped.facts.get("kind") == "torchscript":
        return
    facts = {key: wrapped.facts.get(key) for key in ("base_class", "exported_module")}
    write_json(out / EAGER, facts | {"names": list(base.names) if isinstance(base, Positional) else None})


def _facts(proven: Proven | None, tolerance: Tolerance, samples: Sequence[Path]) -> dict[str, Any]:
    told = {"atol": tolerance.atol, "rtol": tolerance.rtol}
    if proven is None:
        return {**told, "method": "none", "reason": EAGERLY, "parity": [], "skipped": [], "suspects": [], "warnings": [EAGERLY]}
    return {
        **told,
        "method": proven.method,
        "reason": proven.reason,
        "parity": as_json(worst(proven.rows)),
        "skipped": [*proven.skipped, *([ALONE] if len(samples) == 1 else [])],
        "suspects": list(proven.suspects),
        "signature": {key: value for key, value in proven.signature.items() if key != "example"},
        "speed": proven.tuned.speed,
        "warnings": [],
    }


def _example(samples: Sequence[Path]) -> dict[str, str]:
    """The smallest request, for whoever has the archive alone."""
    file = min(samples, key=lambda one: one.stat().st_size)
    return {"name": file.name, "body": base64.b64encode(file.read_bytes()).decode()}


def _told(sample: Sample) -> dict[str, Any]:
    """A sample's shape and type; of several tensors by name."""
    if isinstance(sample, Mapping):
        return {name: _told(tensor) for name, tensor in sample.items()}
    return {"shape": list(sample.shape), "dtype": str(sample.dtype).removeprefix("torch.")}
