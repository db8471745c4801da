"""Stage 1: from a source to a checkpoint folder and sample inputs."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from marline.core import LoadConfig, Manifest, progress, seal
from marline.load._samples import write_samples
from marline.load._sources import IMAGENET, Source, find_source
from marline.load._weights import build


def load(model: str, config: LoadConfig, out: Path) -> Manifest:
    """Write `checkpoint/` (safetensors, config, processor) and `sample/`; facts say which weights these are."""
    started = time.monotonic()
    source = find_source(config)
    samples = write_samples(Path(config.samples) if config.samples else None, out / "sample")
    progress(0.2, f"building {config.source}")
    module, weights = build(source, config, _images(source, samples))
    progress(0.7, "writing the checkpoint")
    checkpoint = out / "checkpoint"
    checkpoint.mkdir()
    state = {key: value.contiguous().clone() for key, value in module.state_dict().items()}
    save_file(state, checkpoint / "model.safetensors", metadata={"format": "pt"})
    _write(checkpoint / "config.json", {**_identity(config), "id2label": dict(source.labels)})
    if source.processor is not None:
        _write(checkpoint / "preprocessor_config.json", source.processor)
    if source.code is not None:
        shutil.copy(source.code, checkpoint / "source.py")
    facts = {
        **_identity(config),
        "weights": {"kind": weights.kind, "detail": weights.detail},
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
    }
    return seal(out, model=model, config=config, inputs=[], facts=facts, started=started)


def _identity(config: LoadConfig) -> dict[str, object]:
    return {"source": config.source, "task": config.task, "init_kwargs": config.init_kwargs}


def _images(source: Source, samples: Sequence[Path]) -> list[torch.Tensor]:
    """The samples as this source's classifiers see them, float32 [3, H, W]; none where we do not know how."""
    if source.processor is None:
        return []
    crop = source.processor["crop_size"]
    images = []
    for file in samples[:4]:
        with Image.open(file) as image:
            pixels = bytearray(image.convert("RGB").resize((crop["width"], crop["height"])).tobytes())
        tensor = torch.frombuffer(pixels, dtype=torch.uint8).view(crop["height"], crop["width"], 3).permute(2, 0, 1)
        mean, std = (torch.tensor(IMAGENET[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))
        images.append((tensor.float() / 255 - mean) / std)
    return images


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")
