"""Does to its own worker what a request tells it, and at its start what `order.json` in its archive tells it.

A request is JSON: {"n": 3} is answered {"n": 3}; `sleep_s`, `write` (a file to make first), `refuse`,
`raise` and `take_mb` are obeyed before that. A batch of more than `most` takes more memory than there is.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch
from base_handler import BadRequestError, handler_factory

ORDER = Path(__file__).with_name("order.json")


def init_function() -> torch.nn.Module:
    """A model that hands on what it gets; the file must be there, so that removing it makes the next start fail."""
    order = json.loads(ORDER.read_text())
    time.sleep(order.get("sleep_s", 0))
    if "raise" in order:
        raise RuntimeError(order["raise"])
    return torch.nn.Identity()


def preprocess(order: Any) -> torch.Tensor:
    """int64 [1]: the number to answer with."""
    if "write" in order:
        Path(order["write"]).touch()
    time.sleep(order.get("sleep_s", 0))
    if "refuse" in order:
        raise BadRequestError(order["refuse"])
    if "raise" in order:
        raise RuntimeError(order["raise"])
    bytearray(order.get("take_mb", 0) << 20)
    return torch.tensor([order["n"]])


def preprocess_batch(samples: list[torch.Tensor]) -> list[torch.Tensor]:
    """The same, where there is memory for so many."""
    bytearray((len(samples) > json.loads(ORDER.read_text()).get("most", 1024)) << 50)
    return samples


def postprocess(output: torch.Tensor) -> dict[str, int]:
    """The number."""
    return {"n": int(output[0])}


handler = handler_factory(
    init_function,
    preprocess_function=preprocess,
    preprocess_batch_function=preprocess_batch,
    postprocess_function=postprocess,
)
