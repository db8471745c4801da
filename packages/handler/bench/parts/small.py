"""Small models whose right answers are known, in archives around the shared handler."""

import io
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from marline.core import project_root
from marline.handler import TASKS, Pair
from packages.handler.bench.parts.archives import SERVED, own

TOKENS, WIDTH = 512, 32


def echo(folder: Path, workers: int) -> Path:
    """Answers with the nonce it was sent; its init function brings the model, so that its file is empty."""
    (folder / "empty.pt").touch()
    return own("echo", SERVED / "echo" / "handler.py", {"model.pt": folder / "empty.pt"}, folder, workers=workers)


def sums(folder: Path) -> Path:
    """Sums of four numbers."""
    (folder / "empty.pt").touch()
    pair = Pair("numbers.npy", npy(np.array([1, 2, 3, 4], np.float32)), {"output": [10.0]})
    return own("sums", SERVED / "sums" / "handler.py", {"model.pt": folder / "empty.pt"}, folder, pairs=[pair])


def text(folder: Path) -> Path:
    """A text classifier: one layer of attention over at most 512 tokens, so that a wrong mask changes its answers."""
    torch.manual_seed(0)
    torch.jit.script(Attention().eval()).save(str(folder / "text.pt"))  # type: ignore[no-untyped-call]
    config = {"max_position_embeddings": TOKENS, "id2label": {str(index): f"label {index}" for index in range(8)}}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = project_root() / "models" / "gpt2_tiny" / "tokenizer.json"
    files = {"model.pt": folder / "text.pt", "config.json": folder / "config.json", "tokenizer.json": tokenizer}
    return own("text", TASKS["text-classification"], files, folder)


class Attention(nn.Module):
    """Token ids and mask [B, tokens] to logits [B, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(2048, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.query, self.key, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 8)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Attention among what the mask lets through, and the mean of that."""
        places = torch.arange(input_ids.size(1), device=input_ids.device)
        states = self.words(input_ids % 2048) + self.places(places)
        scores = self.query(states) @ self.key(states).transpose(1, 2)
        seen = attention_mask.unsqueeze(1) == 0
        states = scores.masked_fill(seen, float("-inf")).softmax(2) @ states
        weights = attention_mask.unsqueeze(2).to(states.dtype)
        logits: torch.Tensor = self.head((states * weights).sum(1) / weights.sum(1))
        return logits


def npy(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], *, allow_pickle: bool = False) -> bytes:
    """An array as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()
