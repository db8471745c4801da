"""`torchvision:NAME`: classifiers, detectors, segmentation and video models that torchvision can build by name."""

import inspect
from difflib import get_close_matches
from functools import partial
from typing import Any

from torchvision import models

from marline.core import LoadConfig, RequestError
from marline.load._modules import Module, called, module_source
from marline.load._source import INPUTS, Expects, Source

TASKS = {
    models: "image-classification",
    models.detection: "object-detection",
    models.segmentation: "image-segmentation",
    models.video: "video-classification",
}
PILLOW = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers of the interpolations that torchvision's presets use


def from_torchvision(config: LoadConfig) -> Source:
    """The model NAME; RequestError with the nearest known name where there is none."""
    name = config.source.removeprefix("torchvision:")
    task = _task(name)
    if config.task not in {"auto", task}:
        raise RequestError(f"load.task={config.task} does not fit {config.source}, which answers {task}; leave it out")
    weights = models.get_model_weights(name).DEFAULT
    init_kwargs = {**_needed(name), **config.init_kwargs}
    return module_source(
        config,
        Module(
            build=partial(called, partial(models.get_model, name, weights=None), init_kwargs),
            published=partial(weights.get_state_dict, progress=False, check_hash=True),
            task=task,
            expects=Expects(input=INPUTS[task]),
            init_kwargs=init_kwargs,
            processor=PROCESSORS[task](weights.transforms()) if task in PROCESSORS else None,
            labels={str(index): label for index, label in enumerate(weights.meta["categories"])},
        ),
    )


def _task(name: str) -> str:
    known = {each: task for module, task in TASKS.items() for each in models.list_models(module=module)}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean torchvision:{near[0]}?" if near else f"known are {', '.join(known)}"
        raise RequestError(f"load.source=torchvision:{name} is not a model of torchvision that takes images or videos; {hint}")
    return known[name]


def _needed(name: str) -> dict[str, Any]:
    """What makes a model without weights the one its published weights belong to, and keeps it from downloading others."""
    takes = inspect.signature(models.get_model_builder(name)).parameters
    needed: dict[str, Any] = {"weights_backbone": None} if "weights_backbone" in takes else {}
    if "aux_loss" in takes:
        needed["aux_loss"] = True
    if name in {"googlenet", "inception_v3"}:
        needed["transform_input"] = True
    return needed


def _classified(transforms: Any) -> dict[str, Any]:
    """The preset that torchvision classifies with, in the words of transformers."""
    return {
        "image_processor_type": "BitImageProcessor",  # resize the shorter edge, cut the centre, rescale, normalise
        "size": {"shortest_edge": transforms.resize_size[0]},
        "do_center_crop": True,
        "crop_size": {"height": transforms.crop_size[0], "width": transforms.crop_size[0]},
        **_pixels(transforms),
    }


def _segmented(transforms: Any) -> dict[str, Any]:
    """The preset for segmentation, but for the aspect: images become squares, so that they fit into one batch."""
    edge = transforms.resize_size[0]
    return {"image_processor_type": "ViTImageProcessor", "size": {"height": edge, "width": edge}, **_pixels(transforms)}


def _pixels(transforms: Any) -> dict[str, Any]:
    return {
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": PILLOW[transforms.interpolation.value],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(transforms.mean),
        "image_std": list(transforms.std),
    }


PROCESSORS = {"image-classification": _classified, "image-segmentation": _segmented}
