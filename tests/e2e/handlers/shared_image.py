"""digits_cnn on the shared handler, with a code of its own and a word of its own beside each explanation."""

from typing import Any

import torch
from base_handler import handler_factory
from model import init_function  # type: ignore[import-not-found]  # it lies beside this file in the archive
from PIL import Image
from ts.utils.util import PredictionException


def preprocess(image: Any) -> torch.Tensor:
    """A PIL image to float32 [1, 8, 8]; 513 for what is text."""
    if isinstance(image, str):
        raise PredictionException(f"{image} is no image", 513)
    assert isinstance(image, Image.Image)
    pixels = bytearray(image.convert("L").resize((8, 8)).tobytes())
    return torch.frombuffer(pixels, dtype=torch.uint8).view(1, 8, 8).float() / 255


def postprocess(logits: torch.Tensor, sample: torch.Tensor) -> dict[str, Any]:
    """The digit, its logits and what the network saw."""
    return {"digit": int(logits.argmax()), "logits": logits, "ink": float(sample.sum())}


digits = handler_factory(init_function, preprocess, postprocess)


class Explained(digits):  # type: ignore[valid-type,misc]
    """Says which digit an explanation is of, and refuses that of 9."""

    def get_insights(self, data_preprocess: Any, raw_data: Any, target: int) -> Any:
        return {**super().get_insights(data_preprocess, raw_data, target), "digit": target}

    def explain_handle(self, data_preprocess: Any, raw_data: Any) -> Any:
        answer = super().explain_handle(data_preprocess, raw_data)
        if answer["digit"] == 9:
            raise PredictionException("nobody may know about 9", 514)
        return answer
