"""Of a handler from scratch no graph is made: golden pairs are what it answers here, and that is all that can be kept."""

import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marline.core import ExportConfig, Manifest, ParityError, RequestError, progress
from marline.handler import Pair, answering, assemble, difference

NOTE = (
    "the handler answers by itself: no graph was made, and nothing was compared with an eager model. Golden pairs show only "
    "that the served handler answers as it did here"
)


def golden_of(
    model: str, config: ExportConfig, wrapped: Manifest, handler: Path, samples: Sequence[Path], folder: Path
) -> list[Pair]:
    """Golden pairs of a handler assembled in `folder`; ParityError where it answers otherwise asked again, or in a batch."""
    _refuse_idle(config)
    assemble(handler, wrapped.path("repository"), folder)
    progress(0.1, "the handler loads its model")
    with answering(folder, handler.stem, model) as ask:
        progress(0.5, "asking the handler")
        pairs = [Pair(file.name, file.read_bytes(), ask([file])[0]) for file in samples]
        again = [ask([file])[0] for file in samples]
        together = ask(samples[: max(config.batch_sizes)])
    for answers, how in ((again, "asked twice"), (together, "alone against in a batch with others")):
        for pair, answer in zip(pairs, answers, strict=False):
            found = difference(pair.answer, answer, atol=config.atol, rtol=config.rtol)
            if found is not None:
                raise ParityError(f"golden pair {pair.name}, {how}: {found}. Nothing was published")
    return pairs


def facts_of(config: ExportConfig, samples: Sequence[Path]) -> dict[str, Any]:
    """What there is to say: method none, with the reason."""
    kinds = sorted({mimetypes.guess_type(file.name)[0] or "application/octet-stream" for file in samples})
    return {
        "atol": config.atol,
        "rtol": config.rtol,
        "method": "none",
        "reason": NOTE,
        "parity": [],
        "suspects": [],
        "warnings": [NOTE],
        "input": {"body": kinds},
    }


def _refuse_idle(config: ExportConfig) -> None:
    """RequestError where a graph is asked for, or something that only a graph can have."""
    idle = {
        f"method={config.method}": config.method not in {"auto", "none"},
        "whole": config.whole is not None,
        "preserve": bool(config.preserve),
        "calls": bool(config.calls),
        "random": config.random,
        "dtype": config.dtype != "float32",
        "fold": config.fold,
        "serve": config.serve is not None,
    }
    if named := [f"export.{name}" for name, is_set in idle.items() if is_set]:
        raise RequestError(
            f"{', '.join(named)}: there is no module to make a graph of, the source is a handler from scratch; leave it out"
        )
