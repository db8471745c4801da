"""Answers with the nonce that a request carries, whatever kind of request it is.

A picture carries it in its top left corner: 24 bits, the highest first, in three rows of eight blocks of 8 x 8 pixels, white
for a one. All others say it: the first number of an array or list, `nonce` of an object, the first word of a text.
"""

from typing import Any

import torch
from base_handler import BadRequestError, handler_factory
from PIL import Image

BLOCK, COLUMNS, ROWS = 8, 8, 3


def init_function() -> torch.nn.Module:
    """A model that hands on what it gets."""
    return torch.nn.Identity()


def preprocess(data: Any) -> torch.Tensor:
    """int64 [1]."""
    if isinstance(data, Image.Image):
        return torch.tensor([_read(data.convert("L"))])
    if isinstance(data, torch.Tensor):
        return data.flatten()[:1].to(torch.int64)
    if isinstance(data, dict):
        return torch.tensor([int(data["nonce"])])
    if isinstance(data, str):
        return torch.tensor([int(data.split(maxsplit=1)[0])])
    raise BadRequestError(f"a {type(data).__name__} carries no nonce")


def _read(image: Image.Image) -> int:
    nonce = 0
    for place in range(ROWS * COLUMNS):
        row, column = divmod(place, COLUMNS)
        level: Any = image.getpixel((column * BLOCK + BLOCK // 2, row * BLOCK + BLOCK // 2))
        nonce = 2 * nonce + (level > 127)
    return nonce


def postprocess(output: torch.Tensor) -> dict[str, int]:
    """The nonce."""
    return {"nonce": int(output[0])}


handler = handler_factory(init_function, preprocess_function=preprocess, postprocess_function=postprocess)
