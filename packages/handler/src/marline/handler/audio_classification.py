"""Sound in, five most likely labels out."""

import json
from pathlib import Path
from typing import Any

from audio_input import to_samples
from base_handler import handler_factory
from collation import most_likely

CONFIG = json.loads((Path(__file__).parent / "config.json").read_text())


def postprocess(output: Any) -> Any:
    """Logits [classes] to the five most likely labels with their probabilities."""
    return most_likely(output, CONFIG)


handler = handler_factory(preprocess_function=to_samples, postprocess_function=postprocess)
