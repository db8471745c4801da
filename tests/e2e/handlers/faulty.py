"""Fails as a request's text says, in each of the ways that TorchServe knows; any other text is answered as it is."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from ts.utils.util import PredictionException


def handle(data: Any, context: Any) -> Any:
    if data is None:  # TorchServe calls once before the first request
        return None
    bodies = [row.get("data") or row.get("body") or "" for row in data]
    texts = [bytes(body).decode() if isinstance(body, bytes | bytearray) else str(body) for body in bodies]
    word, _, rest = texts[0].partition(" ")
    if word == "raise":
        raise ValueError(rest)
    if word == "refuse":
        raise PredictionException("mine", int(rest))
    if word == "memory":
        raise MemoryError
    if word == "die":
        os.kill(os.getpid(), signal.Signals[rest])
    if word == "once" and not Path(rest).exists():
        Path(rest).touch()
        os.kill(os.getpid(), signal.SIGTERM)
    if word == "begin":
        Path(rest).touch()
        time.sleep(1)
    if word == "sleep":
        time.sleep(float(rest))
    nonsense = {"text": "no list", "few": [], "objects": [object() for _ in texts]}
    if word in nonsense:
        return nonsense[word]
    gpu = context.system_properties["gpu_id"]
    return [{"text": text, "gpu": gpu, "pid": os.getpid()} for text in texts]
