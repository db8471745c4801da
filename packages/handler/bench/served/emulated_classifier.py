"""TorchServe's image classifier whose forward pass is the sleep of an emulated accelerator; all else stays its own."""

from typing import Any

import torch
from emulated_device import EmulatedDevice
from ts.torch_handler.image_classifier import ImageClassifier


class EmulatedClassifier(ImageClassifier):  # type: ignore[misc]  # TorchServe has no types
    """Decodes, prepares, sleeps for t(batch), and says the labels of the same logits each time."""

    def initialize(self, context: Any) -> None:
        """As TorchServe's; then the device the server was told of."""
        super().initialize(context)
        self.emulation = EmulatedDevice.read()
        self.logits = torch.linspace(-1, 1, 1000)

    def inference(self, data: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """Logits [B, 1000]."""
        assert self.emulation is not None
        self.emulation.spend(len(data))
        return self.logits.expand(len(data), -1)
