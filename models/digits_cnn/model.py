"""A small convolutional network for 8 x 8 grey digits."""

import torch
from torch import nn

LABELS = {str(digit): str(digit) for digit in range(10)}


class DigitsCnn(nn.Module):
    """Two convolutions and a linear layer; 10,026 parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Linear(2 * channels * 16, 10)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels float32 [B, 1, 8, 8] in 0..1 to logits [B, 10]."""
        return self.classifier(self.features(pixels).flatten(1))


def init_function(channels: int = 16) -> nn.Module:
    """The network without weights."""
    return DigitsCnn(channels)
