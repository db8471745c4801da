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
from body_formats import UnsupportedMediaError
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
RESAMPLE = Image.Resampling(SETTINGS["resample"])
TORCH = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic"}
MUCH = 4  # resizing this many times what is cut out costs more than Pillow's resizing of that part alone
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
    if isinstance(image, str) and image.lstrip().startswith(("<svg", "<?xml")):
        raise UnsupportedMediaError("the body is SVG or XML, which is not read here; expected a JPEG, PNG or WebP image")
    if not isinstance(image, Image.Image):
        raise BadRequestError(f"expected a JPEG, PNG or WebP image, got {type(image).__name__}")
    rgb = image.convert("RGB")
    if CROP is not None:
        pixels = _centre(rgb, CROP)
    else:
        size = (SIZE["width"], SIZE["height"]) if "width" in SIZE else _within(rgb.width, rgb.height)
        pixels = _resized(rgb, *size)
    if not FOLDED:
        pixels = normalised(pixels)
    if CROP is not None or "width" in SIZE:
        return pixels.contiguous()
    height, width = pixels.shape[1:]
    padding = (0, FRAME["width"] - width, 0, FRAME["height"] - height)
    padded = torch.nn.functional.pad(pixels, padding)
    if not MASKED:
        return padded
    return {
        "pixel_values": padded,
        "pixel_mask": torch.nn.functional.pad(torch.ones(height, width, dtype=torch.int64), padding),
    }


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels uint8 [3, height, width] to what the model takes, unless the graph does it itself: float32."""
    return pixels.contiguous().float().mul_(FACTOR).add_(OFFSET)


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


def _centre(rgb: Image.Image, crop: Mapping[str, int]) -> torch.Tensor:
    """What resizing and then cutting the centre leaves."""
    edge, shorter = SIZE.get("shortest_edge"), min(rgb.size)
    whole = (edge * rgb.width // shorter, edge * rgb.height // shorter) if edge else (SIZE["width"], SIZE["height"])
    wide, high = max(crop["width"], whole[0]), max(crop["height"], whole[1])
    left, top = round((wide - crop["width"]) / 2), round((high - crop["height"]) / 2)
    if wide * high <= MUCH * crop["width"] * crop["height"]:
        return _resized(rgb, wide, high)[:, top : top + crop["height"], left : left + crop["width"]]
    x, y = rgb.width / wide, rgb.height / high  # a strip: only the part that stays is resized
    box = (left * x, top * y, (left + crop["width"]) * x, (top + crop["height"]) * y)
    return _tensor(rgb.resize((crop["width"], crop["height"]), RESAMPLE, box=box))


def _resized(rgb: Image.Image, width: int, height: int) -> torch.Tensor:
    """uint8 [3, height, width]; torch resizes as Pillow does, to one level of 255, in a third of the time."""
    mode = TORCH.get(RESAMPLE)
    if mode is None:
        return _tensor(rgb.resize((width, height), RESAMPLE))
    return torch.nn.functional.interpolate(_tensor(rgb).unsqueeze(0), (height, width), mode=mode, antialias=True)[0]


def _tensor(rgb: Image.Image) -> torch.Tensor:
    return torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(rgb.height, rgb.width, 3).permute(2, 0, 1)
