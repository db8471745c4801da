"""Image in, five most likely labels out: the handler of every image classifier without one of its own.

Reads how images are prepared from `preprocessor_config.json` and the labels from `config.json`, both beside this file in
the archive and both in Hugging Face's format. The steps are those of torchvision's classification transforms: resize the
shorter edge (or to a fixed size), cut the centre, scale to 0..1, normalise.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from base_handler import BadRequestError, handler_factory
from collation import most_likely
from PIL import Image

FOLDER = Path(__file__).parent
SETTINGS = json.loads((FOLDER / "preprocessor_config.json").read_text())
CONFIG = json.loads((FOLDER / "config.json").read_text())
NORMAL = SETTINGS.get("do_normalize", True)
MEAN = torch.tensor(SETTINGS["image_mean"] if NORMAL else [0.0] * 3).view(-1, 1, 1)
STD = torch.tensor(SETTINGS["image_std"] if NORMAL else [1.0] * 3).view(-1, 1, 1)
SIZE = SETTINGS["size"]
CROP = SETTINGS.get("crop_size") if SETTINGS.get("do_center_crop", True) else None
if (CROP is None and "width" not in SIZE) or len(MEAN) != 3:
    raise ValueError(f"size {SIZE} without a crop and a mean of {len(MEAN)} colours: this handler makes RGB images of one size")


def preprocess(image: Any) -> torch.Tensor:
    """A PIL image to float32 [3, height, width]."""
    if not isinstance(image, Image.Image):
        raise BadRequestError(f"expected a JPEG, PNG or WebP image, got {type(image).__name__}")
    rgb = image.convert("RGB")
    if CROP is None:  # to a fixed size
        width, height = SIZE["width"], SIZE["height"]
        cut = rgb.resize((width, height), Image.Resampling(SETTINGS["resample"]))
    else:
        width, height = CROP["width"], CROP["height"]
        cut = rgb.resize((width, height), Image.Resampling(SETTINGS["resample"]), box=_centre(rgb.width, rgb.height, CROP))
    pixels = torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8).view(height, width, 3)
    return pixels.permute(2, 0, 1).float().mul_(SETTINGS.get("rescale_factor", 1 / 255)).sub_(MEAN).div_(STD)


def _centre(width: int, height: int, crop: Mapping[str, int]) -> tuple[float, float, float, float]:
    """The part of an image that resizing and cutting the centre would leave: same pixels, less work."""
    edge, shorter = SIZE.get("shortest_edge"), min(width, height)
    whole = (edge * width // shorter, edge * height // shorter) if edge else (SIZE["width"], SIZE["height"])
    wide, high = max(crop["width"], whole[0]), max(crop["height"], whole[1])
    left, top = round((wide - crop["width"]) / 2), round((high - crop["height"]) / 2)
    x, y = width / wide, height / high
    return left * x, top * y, (left + crop["width"]) * x, (top + crop["height"]) * y


def postprocess(output: Any) -> Any:
    """Logits [classes] to the five most likely labels with their probabilities."""
    return most_likely(output, CONFIG)


handler = handler_factory(preprocess_function=preprocess, postprocess_function=postprocess)
