"""Image in, the share of each class out, and where it is: a box in fractions of the prepared image.

A mask for every pixel would be larger than the photograph; who wants it writes a handler.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from base_handler import handler_factory
from image_input import to_pixels

LABELS = json.loads((Path(__file__).parent / "config.json").read_text()).get("id2label") or {}


def postprocess(output: Any) -> list[dict[str, Any]]:
    """Logits [classes, height, width], as `out` or `logits` among others, to the classes that are the likeliest somewhere."""
    logits = output.get("out", output.get("logits")) if isinstance(output, Mapping) else output
    classes = logits.float().argmax(0)
    height, width = classes.shape
    found = []
    for index in classes.unique().tolist():
        rows, columns = (classes == index).nonzero(as_tuple=True)
        box = [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
        share = len(rows) / (height * width)
        found.append(
            {"label": LABELS.get(str(index), str(index)), "index": index, "share": share, "box": [float(one) for one in box]}
        )
    return sorted(found, key=lambda one: -one["share"])


handler = handler_factory(preprocess_function=to_pixels, postprocess_function=postprocess)
