"""Images to a model's pixels, by the `preprocessor_config.json` beside this file, as Hugging Face's image processors do.

Resize the shorter edge and cut the centre, resize to a fixed size, or resize within a frame and pad it at the right and below:
always to one size, so that images fit into one batch. Then scale to 0..1 and normalise, unless the graph does that itself.
Goes into the archives whose handler imports it.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from base_handler import BadRequestError
from PIL import Image
from request_decoding import from_base64

SETTINGS = json.loads((Path(__file__).parent / "preprocessor_config.json").read_text())
FOLDED = bool(SETTINGS.get("folded"))  # the graph scales and normalises, and takes uint8
NORMAL = SETTINGS.get("do_normalize", True)
MEAN = torch.tensor(SETTINGS["image_mean"] if NORMAL else [0.0] * 3).view(-1, 1, 1)
STD = torch.tensor(SETTINGS["image_std"] if NORMAL else [1.0] * 3).view(-1, 1, 1)
SCALE = SETTINGS.get("rescale_factor", 1 / 255) if SETTINGS.get("do_rescale", True) else 1.0
FACTOR, OFFSET = SCALE / STD, -MEAN / STD  # (pixel * SCALE - MEAN) / STD in one pass
SIZE = SETTINGS["size"]
CROP = SETTINGS.get("crop_size") if SETTINGS.get("do_center_crop", True) else None
FRAME = SETTINGS.get("pad_size") or {"height": SIZE.get("longest_edge"), "width": SIZE.get("longest_edge")}
MASKED = SETTINGS.get("image_processor_type", "").removesuffix("Fast") in {
    *("DetrImageProcessor", "ConditionalDetrImageProcessor", "DeformableDetrImageProcessor"),
}  # these models are told which pixels are padding
if (CROP is None and "width" not in SIZE and "longest_edge" not in SIZE) or len(MEAN) != 3:
    raise ValueError(f"size {SIZE} without a crop and a mean of {len(MEAN)} colours: this handler makes RGB images of one size")


def to_pixels(image: Any) -> torch.Tensor | dict[str, torch.Tensor]:
    """A PIL image, or raw pixels uint8 [3, height, width] of the right size where the graph takes them, to the model's input.

    float32 [3, height, width], or uint8 where the graph normalises; with a `pixel_mask` [height, width] for models that pad.
    """
    if FOLDED and isinstance(image, torch.Tensor) and image.dtype == torch.uint8 and image.ndim == 3:
        return image
    if isinstance(image, str):  # as TorchServe's own image handlers take it
        with suppress(BadRequestError):
            image = from_base64(image)
    if not isinstance(image, Image.Image):
        raise BadRequestError(f"expected a JPEG, PNG or WebP image, got {type(image).__name__}")
    rgb = image.convert("RGB")
    resample = Image.Resampling(SETTINGS["resample"])
    if CROP is not None:
        cut = rgb.resize((CROP["width"], CROP["height"]), resample, box=_centre(rgb.width, rgb.height, CROP))
    elif "width" in SIZE:
        cut = rgb.resize((SIZE["width"], SIZE["height"]), resample)
    else:
        cut = rgb.resize(_within(rgb.width, rgb.height), resample)
    pixels = torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8).view(cut.height, cut.width, 3).permute(2, 0, 1)
    if not FOLDED:
        pixels = normalised(pixels)
    if CROP is not None or "width" in SIZE:
        return pixels.contiguous()
    padding = (0, FRAME["width"] - cut.width, 0, FRAME["height"] - cut.height)
    padded = torch.nn.functional.pad(pixels, padding)
    if not MASKED:
        return padded
    return {
        "pixel_values": padded,
        "pixel_mask": torch.nn.functional.pad(torch.ones(cut.height, cut.width, dtype=torch.int64), padding),
    }


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels uint8 [3, height, width] to what the model takes, unless the graph does it itself: float32."""
    return torch.addcmul(OFFSET, pixels.float(), FACTOR)


def _within(width: int, height: int) -> tuple[int, int]:
    """The size with the shorter edge as told, or less where the longer one would leave the frame; Hugging Face's rounding."""
    longest, shortest = SIZE["longest_edge"], SIZE.get("shortest_edge")
    short, long = sorted((width, height))
    if shortest is None:
        edges = (int(short * longest / long + 0.5), longest)
    else:
        edge = min(shortest, longest * short / long)
        edges = (round(edge), int(edge * long / short))
    low, high = (max(1, each) for each in edges)
    return (low, high) if width < height else (high, low)


def _centre(width: int, height: int, crop: Mapping[str, int]) -> tuple[float, float, float, float]:
    """The part of an image that resizing and cutting the centre would leave: same pixels, less work."""
    edge, shorter = SIZE.get("shortest_edge"), min(width, height)
    whole = (edge * width // shorter, edge * height // shorter) if edge else (SIZE["width"], SIZE["height"])
    wide, high = max(crop["width"], whole[0]), max(crop["height"], whole[1])
    left, top = round((wide - crop["width"]) / 2), round((high - crop["height"]) / 2)
    x, y = width / wide, height / high
    return left * x, top * y, (left + crop["width"]) * x, (top + crop["height"]) * y
