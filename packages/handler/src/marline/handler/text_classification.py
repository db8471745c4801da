"""Text in, its five most likely labels out: the handler of every text classifier without one of its own."""

from collections.abc import Mapping
from typing import Any

from base_handler import handler_factory
from text_input import CONFIG, encode

LABELS = CONFIG.get("id2label", {})


def postprocess(output: Any) -> list[dict[str, Any]]:
    """Logits [classes] to labels with their probabilities."""
    logits = (output["logits"] if isinstance(output, Mapping) else output).float()
    best = logits.topk(min(5, len(logits)))
    probabilities = logits.softmax(0)[best.indices]
    pairs = zip(best.indices.tolist(), probabilities.tolist(), strict=True)
    return [{"label": LABELS.get(str(index), str(index)), "index": index, "probability": value} for index, value in pairs]


handler = handler_factory(preprocess_function=encode, postprocess_function=postprocess)
