"""Text to a model's numbers, by the `tokenizer.json` beside this file. Goes into the archives whose handler imports it.

Hugging Face's tokenizers library reads that file as transformers does; transformers itself is not needed.
"""

import json
from pathlib import Path
from typing import Any

import torch
from base_handler import BadRequestError
from tokenizers import Tokenizer

FOLDER = Path(__file__).parent
LONGEST = 512  # tokens, where neither the tokenizer nor the model says


def _told(name: str) -> dict[str, Any]:
    file = FOLDER / name
    return json.loads(file.read_text()) if file.is_file() else {}


CONFIG = _told("config.json")
LIMITS = (
    _told("tokenizer_config.json").get("model_max_length"),
    _told("sentence_bert_config.json").get("max_seq_length"),  # where sentence-transformers cuts
    CONFIG.get("max_position_embeddings"),
)
TOKENS = min((int(limit) for limit in LIMITS if limit), default=LONGEST)  # an absent limit is written as 1e30
if not (FOLDER / "tokenizer.json").is_file():
    raise FileNotFoundError(
        "there is no tokenizer.json; AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it"
    )
CHARACTERS = 100 * TOKENS  # what is behind them is not looked at: a token of plain text has four, a megabyte takes a second
TOKENIZER = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
TOKENIZER.no_padding()  # a batch is padded to its own longest sample
TOKENIZER.enable_truncation(TOKENS)


def encode(text: Any) -> dict[str, torch.Tensor]:
    """A str to `input_ids` and `attention_mask`, each int64 [tokens]; what is longer than the model takes is cut off."""
    if not isinstance(text, str) or not text.strip():
        raise BadRequestError(f"expected a text, got {type(text).__name__ if not isinstance(text, str) else 'an empty one'}")
    encoded = TOKENIZER.encode(text[:CHARACTERS])
    return {"input_ids": torch.tensor(encoded.ids), "attention_mask": torch.tensor(encoded.attention_mask)}
