"""Text in, its five most likely labels out: the handler of every text classifier without one of its own."""

from typing import Any

from base_handler import handler_factory
from collation import most_likely
from text_input import CONFIG, encode


def postprocess(output: Any) -> Any:
    """Logits [classes] to labels with their probabilities."""
    return most_likely(output, CONFIG)


handler = handler_factory(preprocess_function=encode, postprocess_function=postprocess)
