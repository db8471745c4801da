"""Text in, the five likeliest next tokens out; or the text that follows, where the model config names a method that makes it.

One forward pass answers one request. A graph that can `generate` on its own (export.method=hybrid) is asked for by name.
"""

from collections.abc import Mapping
from typing import Any

import torch
from base_handler import handler_factory
from text_input import TOKENIZER, encode


def postprocess(output: Any, sample: Mapping[str, torch.Tensor]) -> Any:
    """Logits [tokens, vocabulary], and perhaps of padding behind them, to what follows the last token.

    Token ids, which a method that generates gives, to the text behind the one that was sent.
    """
    if isinstance(output, torch.Tensor) and not output.is_floating_point():
        return {"text": TOKENIZER.decode(output[len(sample["input_ids"]) :].tolist())}
    logits = output["logits"] if isinstance(output, Mapping) else output
    probabilities = logits[len(sample["input_ids"]) - 1].float().softmax(0)
    best = probabilities.topk(min(5, len(probabilities)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [{"token": TOKENIZER.decode([index]), "index": index, "probability": value} for index, value in pairs]


handler = handler_factory(preprocess_function=encode, postprocess_function=postprocess)
