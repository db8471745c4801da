"""Image in, five most likely labels out: the handler of every image classifier without one of its own.

`image_input.py` says how images are prepared; the labels come from `config.json`, in Hugging Face's format.
"""

import json
from pathlib import Path
from typing import Any

from base_handler import handler_factory
from collation import most_likely
from image_input import to_pixels

CONFIG = json.loads((Path(__file__).parent / "config.json").read_text())


def postprocess(output: Any) -> Any:
    """Logits [classes] to the five most likely labels with their probabilities."""
    return most_likely(output, CONFIG)


handler = handler_factory(preprocess_function=to_pixels, preprocess_in_threads=True, postprocess_function=postprocess)
