"""Where a model comes from: a torchvision name, or a function of the user's own.

Knows how to build a module and find its published weights; knows nothing of files on the way out.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from marline.core import LoadConfig, RequestError

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}  # torchvision's own constants


@dataclass(frozen=True, slots=True)
class Source:
    """One model before it has weights."""

    build: Callable[[], nn.Module]
    published: Callable[[], Mapping[str, torch.Tensor]] | None
    processor: Mapping[str, Any] | None
    labels: Mapping[str, str]
    code: Path | None


def find_source(config: LoadConfig) -> Source:
    """The source that `load.source` names; RequestError with the nearest known name where there is none."""
    kind, _, name = config.source.partition(":")
    return {"torchvision": _torchvision, "python": _python}[kind](name, config.init_kwargs)


def _torchvision(name: str, init_kwargs: Mapping[str, Any]) -> Source:
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean torchvision:{near[0]}?" if near else f"known are {', '.join(known)}"
        raise RequestError(f"load.source=torchvision:{name} is not an image classifier of torchvision; {hint}")
    weights = torchvision.models.get_model_weights(name).DEFAULT
    transforms = weights.transforms()
    processor = {
        "image_processor_type": "BitImageProcessor",  # resize the shorter edge, cut the centre, rescale, normalise
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": transforms.resize_size[0]},
        "resample": {"bilinear": 2, "bicubic": 3}[transforms.interpolation.value],
        "do_center_crop": True,
        "crop_size": {"height": transforms.crop_size[0], "width": transforms.crop_size[0]},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(transforms.mean),
        "image_std": list(transforms.std),
    }
    return Source(
        build=lambda: _called(partial(torchvision.models.get_model, name, weights=None), init_kwargs),
        published=lambda: weights.get_state_dict(progress=False, check_hash=True),
        processor=processor,
        labels={str(index): label for index, label in enumerate(weights.meta["categories"])},
        code=None,
    )


def _python(name: str, init_kwargs: Mapping[str, Any]) -> Source:
    file, _, function = name.rpartition(":")
    if not Path(file).is_file():
        raise RequestError(f"load.source=python:{name}: there is no file {file}; the path is relative to the project's root")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None, file
    assert spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    init = getattr(module, function, None)
    if not callable(init):
        raise RequestError(f"load.source=python:{name}: {file} has no function {function!r}")
    return Source(
        build=lambda: _called(init, init_kwargs),
        published=None,
        processor=None,
        labels=getattr(module, "LABELS", {}),
        code=Path(file),
    )


def _called(build: Callable[..., nn.Module], init_kwargs: Mapping[str, Any]) -> nn.Module:
    try:
        return build(**init_kwargs)
    except TypeError as error:
        raise RequestError(
            f"load.init_kwargs={dict(init_kwargs)} does not fit: {error}; write load.init_kwargs.KEY=VALUE"
        ) from None
