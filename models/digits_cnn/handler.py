"""Serves digits_cnn: an 8 x 8 grey image in, the digit and its probability out."""

from typing import Any

import torch
from base_handler import BadRequestError, handler_factory
from model import init_function
from PIL import Image


def preprocess(image: Any) -> torch.Tensor:
    """A PIL image to float32 [1, 8, 8] in 0..1."""
    if not isinstance(image, Image.Image):
        raise BadRequestError(f"expected a JPEG, PNG or WebP image of a digit, got {type(image).__name__}")
    pixels = bytearray(image.convert("L").resize((8, 8)).tobytes())
    return torch.frombuffer(pixels, dtype=torch.uint8).view(1, 8, 8).float() / 255


def postprocess(logits: torch.Tensor) -> dict[str, Any]:
    """Logits [10] to the most likely digit."""
    probabilities = logits.softmax(0)
    digit = int(probabilities.argmax())
    return {"digit": digit, "probability": float(probabilities[digit])}


handler = handler_factory(init_function, preprocess_function=preprocess, postprocess_function=postprocess)
