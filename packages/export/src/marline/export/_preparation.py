"""Whether a handler of ours does what the model's own processor or pooling does; these have more ways than it knows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoImageProcessor

from marline.core import Manifest, StageError
from marline.handler import TASKS

ALLOWED = 0.1  # of the pixels' spread: roundings in resizing come to 0.01, a step that is left out to 0.4 and more
POOLING = {"Transformer", "Pooling", "Normalize"}  # what our handler's mean of length 1 stands for


def check_preparation(handler: Path, wrapped: Manifest, samples: Sequence[Path], inputs: Sequence[Any]) -> None:
    """StageError where a handler of ours would answer something else than the model's owner meant; others know best."""
    if wrapped.facts.get("kind") != "transformers" or handler not in TASKS.values():
        return
    repository = wrapped.path("repository")
    if handler == TASKS["image-classification"]:
        reason = _image_difference(repository, samples, inputs)
    elif handler == TASKS["feature-extraction"]:
        reason = _pooling_difference(repository)
    else:
        return
    if reason:
        raise StageError(f"{handler.name} is not the handler for this model: {reason}; write models/NAME/handler.py")


def _image_difference(repository: Path, samples: Sequence[Path], inputs: Sequence[Any]) -> str:
    auto: Any = AutoImageProcessor  # untyped
    try:
        processor = auto.from_pretrained(repository, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # processors of foreign code, and foreign settings
        return f"its image processor cannot be asked ({' '.join(str(error).split())[:200]})"
    name, off, spread = type(processor).__name__, 0.0, 0.0
    for file, ours in zip(samples, inputs, strict=True):
        if file.suffix == ".json":
            continue
        with Image.open(file) as image:
            theirs = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
        if theirs.shape != ours.shape:
            return f"its {name} makes {list(theirs.shape)} of {file.name}, our handler {list(ours.shape)}"
        off, spread = off + float((theirs - ours).abs().mean()), spread + float(theirs.std())
    return f"its {name} prepares other pixels, {off / spread:.0%} of their spread away" if off > ALLOWED * spread else ""


def _pooling_difference(repository: Path) -> str:
    modules = repository / "modules.json"
    if not modules.is_file():
        return ""
    told = json.loads(modules.read_text(encoding="utf-8"))
    if other := sorted({one["type"].rpartition(".")[2] for one in told} - POOLING):
        return f"sentence-transformers adds {', '.join(other)}"
    for one in told:
        file = repository / one["path"] / "config.json"
        modes = json.loads(file.read_text(encoding="utf-8")) if one["type"].endswith(".Pooling") else {}
        if other := sorted(
            mode for mode, on in modes.items() if mode.startswith("pooling_mode_") and on is True and "mean_tokens" not in mode
        ):
            return f"sentence-transformers pools by {', '.join(other)}, not by the mean"
    return ""
