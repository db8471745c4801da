"""Decodes request bodies, strictly: nothing in them is executed, and nothing large is unpacked before it was measured.

What a preprocess function receives: a JPEG, PNG or WebP body as a PIL image, a JSON list or number as a float32 tensor,
any other JSON value as it is, UTF-8 text as str. Goes into every archive beside `base_handler.py`.
"""

import io
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP")  # an explicit list: Pillow also opens formats that are risky or surprising in a request
MAX_PIXELS = 50_000_000


class BadRequestError(ValueError):
    """What the client sent cannot be answered; a preprocess function may raise it too."""


def decode(request: Mapping[str, Any]) -> Any:
    """The payload of one request, see the top of this file."""
    value = request.get("data", request.get("body"))
    if isinstance(value, bytes | bytearray):
        return _decode_bytes(bytes(value))
    if isinstance(value, list | int | float) and not isinstance(value, bool):
        try:
            numbers = torch.tensor(value, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadRequestError(f"the list is not a tensor: {error}") from None
        if not numbers.isfinite().all():
            raise BadRequestError("the list holds NaN, Infinity or a number too large for float32")
        return numbers
    if value is None or value == "":
        raise BadRequestError("the request has no body")
    return value


def _decode_bytes(body: bytes) -> Any:
    if not body:
        raise BadRequestError("the request has no body")
    if body[:3] == b"\xff\xd8\xff" or body[:8] == b"\x89PNG\r\n\x1a\n" or (body[:4] == b"RIFF" and body[8:12] == b"WEBP"):
        return _decode_image(body)
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise BadRequestError(f"the body is neither {', '.join(FORMATS)} nor UTF-8 text") from None


def _decode_image(body: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
        small_enough = image.width * image.height <= MAX_PIXELS
        if small_enough:
            image.load()
    except Exception as error:  # Pillow raises errors of many kinds on hostile bytes
        raise BadRequestError(f"the image cannot be decoded: {error}") from None
    if not small_enough:
        raise BadRequestError(f"the image has {image.width} x {image.height} pixels; {MAX_PIXELS} are allowed")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to 8, so that nearly every grey becomes white
        raise BadRequestError("the image has 16 bits of grey per pixel; 8 are expected")
    return image
