from typing import Any

import torch
from ts.torch_handler.image_classifier import ImageClassifier


class CustomImageClassifier(ImageClassifier):  # type: ignore[misc]  # TorchServe has no types
    """Two classes, and images that are shown upside down."""

    topk = 2

    def preprocess(self, data: Any) -> Any:
        images: torch.Tensor = super().preprocess(data)
        return images.flip(2)
