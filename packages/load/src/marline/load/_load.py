"""Stage 1: from a source to a checkpoint folder and sample inputs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from marline.core import LoadConfig, Manifest, progress, seal


def load(model: str, config: LoadConfig, out: Path) -> Manifest:
    """Write `checkpoint/` (weights, config, processors) and `sample/`; facts say what it is and which weights these are.

    A handler from scratch has no checkpoint.
    """
    started = time.monotonic()
    progress(0.05, f"looking at {config.source}")
    from marline.load._samples import write_samples  # noqa: PLC0415 - both bring torch: seconds that are this stage's alone
    from marline.load._sources import source_of  # noqa: PLC0415 - as above

    source = source_of(config)
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
