"""Image in, five most likely labels out: the handler of every image classifier without one of its own.

Reads how images are prepared from `preprocessor_config.json` and the labels from `config.json`, both beside this file in
the archive and both in Hugging Face's format. The steps are those of torchvision's classification transforms: resize the
shorter edge, cut the centre, scale to 0..1, normalise.
"""

import json
from pathlib import Path
from typing import Any

import torch
from base_handler import BadRequestError, handler_factory
from PIL import Image

FOLDER = Path(__file__).parent
SETTINGS = json.loads((FOLDER / "preprocessor_config.json").read_text())
LABELS = json.loads((FOLDER / "config.json").read_text())["id2label"]
MEAN = torch.tensor(SETTINGS["image_mean"]).view(3, 1, 1)
STD = torch.tensor(SETTINGS["image_std"]).view(3, 1, 1)


def preprocess(image: Any) -> torch.Tensor:
    """A PIL image to float32 [3, height, width]."""
    if not isinstance(image, Image.Image):
        raise BadRequestError(f"expected a JPEG, PNG or WebP image, got {type(image).__name__}")
    edge, crop = SETTINGS["size"]["shortest_edge"], SETTINGS["crop_size"]
    rgb = image.convert("RGB")
    width, height = (edge * side // min(rgb.size) for side in rgb.size)
    width, height = max(crop["width"], width), max(crop["height"], height)
    left, top = round((width - crop["width"]) / 2), round((height - crop["height"]) / 2)
    # Only the centre is kept, so only the centre is resized: same pixels, less work.
    right, bottom = left + crop["width"], top + crop["height"]
    x, y = rgb.width / width, rgb.height / height
    box = (left * x, top * y, right * x, bottom * y)
    cut = rgb.resize((crop["width"], crop["height"]), Image.Resampling(SETTINGS["resample"]), box=box)
    pixels = torch.frombuffer(bytearray(cut.tobytes()), dtype=torch.uint8).view(crop["height"], crop["width"], 3)
    return pixels.permute(2, 0, 1).float().div_(255).sub_(MEAN).div_(STD)


def postprocess(logits: torch.Tensor) -> list[dict[str, Any]]:
    """Logits [classes] to the five most likely labels with their probabilities."""
    best = logits.topk(min(5, len(logits)))  # by logit: probabilities may be equal where they underflow
    probabilities = logits.float().softmax(0)[best.indices]
    pairs = zip(best.indices.tolist(), probabilities.tolist(), strict=True)
    return [{"label": LABELS.get(str(index), str(index)), "index": index, "probability": value} for index, value in pairs]


handler = handler_factory(preprocess_function=preprocess, postprocess_function=postprocess)
