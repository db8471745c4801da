"""Sound in, the seconds in which somebody speaks out."""

from typing import Any

import torch
from audio_input import LENGTH, RATE, to_samples
from base_handler import handler_factory

SPEAKS = 0.5  # probability from which on a piece counts as speech


def postprocess(output: torch.Tensor) -> dict[str, Any]:
    """Probabilities of speech [pieces] of equal length to stretches of speech, and the largest probability."""
    piece_s = LENGTH / RATE / len(output)
    stretches: list[list[float]] = []
    for index, speaks in enumerate((output > SPEAKS).tolist()):
        if speaks and stretches and stretches[-1][1] == index * piece_s:
            stretches[-1][1] = (index + 1) * piece_s
        elif speaks:
            stretches.append([index * piece_s, (index + 1) * piece_s])
    return {"speech_s": stretches, "probability": float(output.max())}


handler = handler_factory(preprocess_function=to_samples, postprocess_function=postprocess)
