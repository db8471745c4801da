"""The checkpoint of a plain torch module: safetensors, config.json, and what else its loader needs."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from PIL import Image
from torch import nn

from marline.core import LoadConfig, RequestError, StageError, progress, write_json
from marline.load._source import Expects, Source, Written, only_transformers
from marline.load._weights import build

SETTLING = 4  # images that settle batch norm; more change little


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One plain module before it has weights."""

    build: Callable[[], nn.Module]
    published: Callable[[], Mapping[str, torch.Tensor]] | None = None
    task: str
    expects: Expects
    init_kwargs: Mapping[str, Any]
    processor: Mapping[str, Any] | None = None  # preprocessor_config.json
    labels: Mapping[str, str] = field(default_factory=dict)
    code: Path | None = None


def module_source(config: LoadConfig, module: Module) -> Source:
    """The source that writes this module's checkpoint."""
    only_transformers(config)
    return Source(
        kind="module",
        task=module.task,
        init_kwargs=module.init_kwargs,
        expects=module.expects,
        write=partial(_write, config, module),
    )


def called(build: Callable[..., nn.Module], init_kwargs: Mapping[str, Any]) -> nn.Module:
    """What `build` gives for the user's keyword arguments.

    Raises RequestError where they do not fit or it is no module, StageError where it fails.
    """
    try:
        module = build(**init_kwargs)
    except TypeError as error:
        raise RequestError(
            f"load.init_kwargs={dict(init_kwargs)} does not fit: {error}; write load.init_kwargs.KEY=VALUE"
        ) from None
    except Exception as error:  # code of the user's or of a library's, and values that it does not take
        raise StageError(
            f"load.source fails with load.init_kwargs={dict(init_kwargs)}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(module, nn.Module):
        raise RequestError(f"load.source must name a function that returns a torch.nn.Module, not {type(module).__name__}")
    return module


def _write(config: LoadConfig, module: Module, checkpoint: Path, samples: Sequence[Path]) -> Written:
    built, weights = build(module.build, module.published, config, _images(module, samples))
    progress(0.7, "writing the checkpoint")
    checkpoint.mkdir()
    state = {key: value.contiguous().clone() for key, value in built.state_dict().items()}  # nothing shared any more
    save_torch_state_dict(state, checkpoint, max_shard_size=config.max_shard_size)
    told = {"source": config.source, "task": module.task, "init_kwargs": dict(module.init_kwargs)}
    write_json(checkpoint / "config.json", {**told, "id2label": dict(module.labels)})
    if module.processor is not None:
        write_json(checkpoint / "preprocessor_config.json", module.processor)
    if module.code is not None:
        shutil.copyfile(module.code, checkpoint / "source.py")
    return Written(weights, sum(parameter.numel() for parameter in built.parameters()))


def _images(module: Module, samples: Sequence[Path]) -> list[torch.Tensor]:
    """The samples as this module's classifiers see them, float32 [3, H, W]; none where we do not know how."""
    told = module.processor or {}
    if not {"crop_size", "image_mean", "image_std"} <= told.keys():
        return []
    height, width = (told["crop_size"][side] for side in ("height", "width"))
    mean, std = (torch.tensor(told[key]).view(3, 1, 1) for key in ("image_mean", "image_std"))
    images = []
    for file in [file for file in samples if file.suffix != ".json"][:SETTLING]:
        with Image.open(file) as image:
            pixels = bytearray(image.convert("RGB").resize((width, height)).tobytes())
        tensor = torch.frombuffer(pixels, dtype=torch.uint8).view(height, width, 3).permute(2, 0, 1)
        images.append((tensor.float() / 255 - mean) / std)
    return images
