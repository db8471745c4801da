"""Stage 1: from a source to a checkpoint folder and sample inputs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from marline.core import LoadConfig, Manifest, progress, seal
from marline.load._handler import from_handler
from marline.load._python import from_python
from marline.load._samples import write_samples
from marline.load._source import Source
from marline.load._timm import from_timm
from marline.load._torchscript import from_torchscript
from marline.load._torchvision import from_torchvision
from marline.load._transformers import from_transformers

SOURCES: dict[str, Callable[[LoadConfig], Source]] = {
    "handler": from_handler,
    "python": from_python,
    "timm": from_timm,
    "torchscript": from_torchscript,
    "torchvision": from_torchvision,
}  # everything else is a Hugging Face repository: hf:, package:, or a folder


def load(model: str, config: LoadConfig, out: Path) -> Manifest:
    """Write `checkpoint/` (weights, config, processors) and `sample/`; facts say what it is and which weights these are.

    A handler from scratch has no checkpoint.
    """
    started = time.monotonic()
    progress(0.05, f"looking at {config.source}")
    source = SOURCES.get(config.source.partition(":")[0], from_transformers)(config)
    with _staged(out) as folder:
        samples = write_samples(config, source.expects, folder / "sample")
        progress(0.2, f"building {config.source}")
        written = source.write(folder / "checkpoint", samples)
    facts = {
        "kind": source.kind,
        "source": config.source,
        "task": source.task,
        "init_kwargs": dict(source.init_kwargs),
        "weights": {"kind": written.weights.kind, "detail": written.weights.detail},
        "parameters": written.parameters,
        "input": source.expects.input,
        **written.facts,
    }
    return seal(out, model=model, config=config, inputs=[], facts=facts, started=started)


@contextmanager
def _staged(out: Path) -> Iterator[Path]:
    """A folder whose content moves into `out` when all went well and vanishes otherwise: nothing is half-written."""
    with TemporaryDirectory(dir=out, prefix=".staged-") as name:
        yield Path(name)
        for path in Path(name).iterdir():
            path.rename(out / path.name)
