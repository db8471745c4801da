"""`timm:NAME`: image classifiers of the timm library, which is imported only for them."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch

from marline.core import LoadConfig, RequestError
from marline.load._hub import WEIGHTS_S, fetched
from marline.load._modules import Module, called, module_source
from marline.load._source import Expects, Source

PILLOW = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}  # Pillow's numbers of timm's interpolations


def from_timm(config: LoadConfig) -> Source:
    """The model NAME; RequestError with the nearest known name where there is none."""
    import timm as untyped  # noqa: PLC0415 - it takes its time, and other sources do without

    timm: Any = untyped
    name = config.source.removeprefix("timm:")
    if not timm.is_model(name):
        near = get_close_matches(name, timm.list_models(), n=1)
        hint = f"; did you mean timm:{near[0]}?" if near else ""
        raise RequestError(f"load.source=timm:{name} is not a model of timm{hint}")
    if config.task not in {"auto", "image-classification"}:
        raise RequestError(f"load.task={config.task} does not fit {config.source}, which answers image-classification")
    cfg = timm.get_pretrained_cfg(name).to_dict()
    return module_source(
        config,
        Module(
            build=partial(called, partial(timm.create_model, name, pretrained=False), config.init_kwargs),
            published=partial(_published, timm, name, cfg, config.init_kwargs) if timm.is_model_pretrained(name) else None,
            task="image-classification",
            expects=Expects(input="image"),
            init_kwargs=config.init_kwargs,
            processor=_processor(timm.data.resolve_data_config(config.init_kwargs, pretrained_cfg=cfg)),
            labels=_labels(timm, {**cfg, **config.init_kwargs}),
        ),
    )


def _published(timm: Any, name: str, cfg: Mapping[str, Any], init_kwargs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights timm knows of; those on the hub are fetched first by what gives up in time."""
    if cfg.get("hf_hub_id"):
        fetched(cfg["hf_hub_id"], "", ["model.safetensors"], WEIGHTS_S)
    state: dict[str, torch.Tensor] = timm.create_model(name, pretrained=True, **init_kwargs).state_dict()
    return state


def _processor(data: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluation transform in the words of transformers: timm resizes by size / crop_pct, then cuts the centre."""
    _, height, width = data["input_size"]
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": math.floor(min(height, width) / data["crop_pct"])},
        "resample": PILLOW[data["interpolation"]],
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(data["mean"]),
        "image_std": list(data["std"]),
    }


def _labels(timm: Any, cfg: Mapping[str, Any]) -> dict[str, str]:
    """ImageNet's names where the number of classes tells which ImageNet it is."""
    if cfg.get("label_names"):
        return {str(index): label for index, label in enumerate(cfg["label_names"])}
    subset = timm.data.infer_imagenet_subset(dict(cfg))
    if subset is None:
        return {}
    return {str(index): label for index, label in enumerate(timm.data.ImageNetInfo(subset).label_descriptions())}
