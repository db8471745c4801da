"""Serves digits_sklearn: a handler from scratch, with a model of scikit-learn that it trains when it is loaded.

TorchServe calls `initialize` once in each worker, and `handle` with every batch. Nothing of marline or torch is imported.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import train_test_split

FORMATS = ("JPEG", "PNG", "WEBP")  # an explicit list: Pillow also opens formats that are risky or surprising in a request
MAX_PIXELS = 1_000_000  # looked at before anything is unpacked; a digit needs 64


class DigitsHandler:
    """Answers an image of a digit with the digit and its probability."""

    def initialize(self, _: Any) -> None:
        """Train on one half of scikit-learn's digits, the same in every worker; models/digits_cnn learns from that half too."""
        digits = load_digits()
        pixels = np.round(digits.images * (255 / 16)).reshape(-1, 64)  # published as 0..16
        train, _, labels, _ = train_test_split(pixels, digits.target, test_size=0.5, random_state=0, stratify=digits.target)
        self.model = ExtraTreesClassifier(100, random_state=0, n_jobs=1).fit(train, labels)

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[dict[str, Any]]:
        """One answer per request, in order; an item that is no image gets its own 400, its neighbours their digits."""
        answers: list[dict[str, Any]] = [{}] * len(data)
        images = {}
        for index, request in enumerate(data):
            context.set_response_content_type(index, "application/json")
            try:
                images[index] = _pixels(request.get("data", request.get("body")))
            except ValueError as error:
                context.set_response_status(code=400, phrase="Bad Request", idx=index)
                answers[index] = {"code": 400, "type": "BadRequest", "message": str(error)}
        if images:
            rows = self.model.predict_proba(np.stack(list(images.values())))
            for index, row in zip(images, rows, strict=True):
                answers[index] = {"output": {"digit": int(row.argmax()), "probability": float(row.max())}}
        return answers


def _pixels(body: Any) -> NDArray[np.float64]:
    """The grey values of an image body, 0 to 255, float64 [64]; ValueError says what is wrong with it."""
    if not isinstance(body, bytes | bytearray):
        raise ValueError(f"expected a JPEG, PNG or WebP image of a digit, got {type(body).__name__}")  # noqa: TRY004 - answered
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
        small_enough = image.width * image.height <= MAX_PIXELS
        if small_enough:
            image.load()
    except Exception as error:  # Pillow raises errors of many kinds on hostile bytes
        raise ValueError(f"the image cannot be decoded: {error}") from None
    if not small_enough:
        raise ValueError(f"the image has {image.width} x {image.height} pixels; {MAX_PIXELS} are allowed")
    if image.mode.startswith("I"):  # Pillow would clip 16 bits to 8, so that nearly every grey becomes white
        raise ValueError("the image has 16 bits of grey per pixel; 8 are expected")
    return np.asarray(image.convert("L").resize((8, 8)), dtype=np.float64).reshape(64)
