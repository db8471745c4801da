"""Image in, boxes with their labels out: for detectors of transformers (DETR's kind) and of torchvision.

Those of torchvision take images of any size as a list and bring their own preparation; there is no image processor then.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from base_handler import BadRequestError, handler_factory
from collation import as_list, collate
from PIL import Image

FOLDER = Path(__file__).parent
LABELS = json.loads((FOLDER / "config.json").read_text()).get("id2label") or {}
OF_TORCHVISION = not (FOLDER / "preprocessor_config.json").is_file()
LEAST, MOST = 0.5, 100  # score of a box, and number of boxes; the best is given whatever its score
if not OF_TORCHVISION:
    from image_input import to_pixels


def preprocess(image: Any) -> Any:
    """A PIL image to float32 [3, height, width]: from 0 to 1 in its own size for torchvision, else as the processor says."""
    if not OF_TORCHVISION:
        return to_pixels(image)
    if not isinstance(image, Image.Image):
        raise BadRequestError(f"expected a JPEG, PNG or WebP image, got {type(image).__name__}")
    rgb = image.convert("RGB")
    pixels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(rgb.height, rgb.width, 3)
    return pixels.permute(2, 0, 1).float().div_(255)


def postprocess(output: Mapping[str, torch.Tensor], sample: Any) -> list[dict[str, Any]]:
    """Boxes as [left, top, right, bottom] in fractions of the image, best first."""
    if "boxes" in output:
        height, width = sample.shape[-2:]
        boxes, labels, scores = (
            output["boxes"] / torch.tensor([width, height, width, height]),
            output["labels"],
            output["scores"],
        )
    else:
        scores, labels = output["logits"].float().softmax(-1)[:, :-1].max(-1)  # the last class is "no object"
        x, y, width, height = output["pred_boxes"].float().unbind(-1)
        boxes = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], -1)
    order = scores.argsort(descending=True, stable=True)[:MOST]
    kept = [index for place, index in enumerate(order.tolist()) if not place or scores[index] >= LEAST]
    return [
        {
            "label": LABELS.get(str(int(labels[index])), str(int(labels[index]))),
            "index": int(labels[index]),
            "score": float(scores[index]),
            "box": boxes[index].tolist(),
        }
        for index in kept
    ]


handler = handler_factory(
    preprocess_function=preprocess,
    postprocess_function=postprocess,
    collate_function=as_list if OF_TORCHVISION else collate,
)
