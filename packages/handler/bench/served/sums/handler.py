"""Sums of four numbers: a model that takes a list or an array as it is."""

import torch
from base_handler import handler_factory


def init_function() -> torch.nn.Module:
    """float32 [B, 4] to [B, 1]."""
    sums = torch.nn.Linear(4, 1, bias=False)
    torch.nn.init.ones_(sums.weight)
    return sums


handler = handler_factory(init_function)
