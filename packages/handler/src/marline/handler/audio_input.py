"""Sounds to a model's samples. Goes into the archives whose handler imports it.

Every sound is cut, or filled with silence, to one length: in a batch of different lengths models without a mask would hear
their neighbours' padding.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from base_handler import BadRequestError
from request_decoding import Audio, from_base64

FILE = Path(__file__).parent / "preprocessor_config.json"
SETTINGS = json.loads(FILE.read_text()) if FILE.is_file() else {}
RATE = SETTINGS.get("sampling_rate", 16_000)  # Hz
SECONDS = 4.0
LENGTH = int(SECONDS * RATE)


def to_samples(audio: Any) -> torch.Tensor:
    """A decoded WAV of the model's rate to float32 [LENGTH], of mean 0 and variance 1 where the processor says so."""
    if isinstance(audio, str):
        with suppress(BadRequestError):
            audio = from_base64(audio)
    if not isinstance(audio, Audio):
        raise BadRequestError(f"expected a WAV file, got {type(audio).__name__}")
    if audio.rate != RATE:
        raise BadRequestError(f"the sound has {audio.rate} samples a second; {RATE} are expected")
    sound = audio.samples[:LENGTH]
    if SETTINGS.get("do_normalize"):
        sound = (sound - sound.mean()) / (sound.var(correction=0) + 1e-7).sqrt()
    return torch.nn.functional.pad(sound, (0, LENGTH - len(sound)))
