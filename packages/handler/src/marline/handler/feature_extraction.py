"""Text in, its embedding out: the mean of the vectors of its tokens, of length 1, as sentence-transformers serves it.

Reimers and Gurevych, Sentence-BERT (2019), section 3: mean pooling over the tokens that are no padding.
"""

from collections.abc import Mapping
from typing import Any

import torch
from base_handler import handler_factory
from text_input import encode


def postprocess(output: Any, sample: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Vectors of tokens [tokens, width], and perhaps of padding behind them, to one vector [width]."""
    vectors = output["last_hidden_state"] if isinstance(output, Mapping) else output
    mean = vectors[: len(sample["input_ids"])].float().mean(0)
    return {"embedding": torch.nn.functional.normalize(mean, dim=0)}


handler = handler_factory(preprocess_function=encode, postprocess_function=postprocess)
