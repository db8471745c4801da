"""Image in, masks out: how good each is said to be, which part of the prepared image it covers, and its box."""

from collections.abc import Mapping
from typing import Any

import torch
from base_handler import handler_factory
from image_input import to_pixels


def postprocess(output: Mapping[str, torch.Tensor]) -> list[dict[str, Any]]:
    """`pred_masks` [points, masks, height, width] and `iou_scores` [points, masks] to one entry a mask, best first."""
    masks, scores = output["pred_masks"].float().flatten(0, 1) > 0, output["iou_scores"].float().flatten()
    found = []
    for mask, score in zip(masks, scores.tolist(), strict=True):
        rows, columns = mask.nonzero(as_tuple=True)
        height, width = mask.shape
        box = (
            [columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height]
            if len(rows)
            else []
        )
        found.append({"score": score, "share": float(mask.float().mean()), "box": [float(one) for one in box]})
    return sorted(found, key=lambda one: -one["score"])


handler = handler_factory(preprocess_function=to_pixels, preprocess_in_threads=True, postprocess_function=postprocess)
