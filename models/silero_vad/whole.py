"""A whole sound in one call: the network itself hears 32 ms at a time and keeps a state between calls, which no server may."""

import torch
from torch import nn


class WholeSound(nn.Module):
    """Asks the network for every piece of a sound, from a state of nothing."""

    def __init__(self, trained_model: nn.Module) -> None:
        super().__init__()
        self.model = trained_model

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        """Sounds [B, n] of 16 kHz to the probability of speech in each 512 samples, [B, pieces]."""
        return self.model.audio_forward(sound, 16000)
