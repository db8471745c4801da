"""`python -m pipelines.new_model name=NAME`: a runnable skeleton in `models/` and `configs/models/`.

It runs as it is: `nox -s pipeline -- model=NAME profile=smoke`.
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from marline.core import MarlineError, RequestError, known_models, project_root

MODEL = '''"""The network of {name}: replace it with yours."""

import torch
from torch import nn

LABELS = {{"0": "dark", "1": "bright"}}


class Network(nn.Module):
    """One convolution and a linear layer, so that the skeleton runs."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.classifier = nn.Linear(channels, len(LABELS))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels float32 [B, 3, 64, 64] in 0..1 to logits [B, labels]."""
        return self.classifier(torch.relu(self.features(pixels)).mean((2, 3)))


def init_function(channels: int = 8) -> nn.Module:
    """The network without weights; keyword arguments come from load.init_kwargs."""
    return Network(channels)
'''
HANDLER = '''"""Serves {name}: what happens to one sample before and after the network."""

from typing import Any

import torch
from base_handler import BadRequestError, handler_factory
from model import LABELS, init_function
from PIL import Image


def preprocess(image: Any) -> torch.Tensor:
    """A PIL image to float32 [3, 64, 64] in 0..1."""
    if not isinstance(image, Image.Image):
        raise BadRequestError(f"expected a JPEG, PNG or WebP image, got {{type(image).__name__}}")
    pixels = bytearray(image.convert("RGB").resize((64, 64)).tobytes())
    return torch.frombuffer(pixels, dtype=torch.uint8).view(64, 64, 3).permute(2, 0, 1).float() / 255


def postprocess(logits: torch.Tensor) -> dict[str, Any]:
    """Logits [labels] to the most likely label."""
    probabilities = logits.softmax(0)
    best = int(probabilities.argmax())
    return {{"label": LABELS[str(best)], "probability": float(probabilities[best])}}


handler = handler_factory(init_function, preprocess_function=preprocess, postprocess_function=postprocess)
'''
CARD = """# {name}

What it does, what it was trained on, its licence. Weights: random until `load.weights` in
`configs/models/{name}.yaml` names a `.safetensors` file.

    nox -s pipeline -- model={name} profile=smoke
"""
CONFIG = """load:
  source: python:models/{name}/model.py:init_function
  weights: random
"""


def main(words: Sequence[str]) -> int:
    """Exit code 2 for a wrong or taken name."""
    try:
        root = project_root()
        name = name_of(root, words)
    except MarlineError as error:
        print(f"new-model: {error}", file=sys.stderr)
        return error.exit_code
    for file, text in files(root, name).items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(name=name))
        print(f"new-model: wrote {file.relative_to(root)}")
    print(f"new-model: run it with nox -s pipeline -- model={name} profile=smoke")
    return 0


def files(root: Path, name: str) -> dict[Path, str]:
    """What is written where; texts still hold the place of the name."""
    folder = root / "models" / name
    config = root / "configs" / "models" / f"{name}.yaml"
    return {folder / "model.py": MODEL, folder / "handler.py": HANDLER, folder / "README.md": CARD, config: CONFIG}


def name_of(root: Path, words: Sequence[str]) -> str:
    """The name asked for, if it can be one: a letter, then letters, digits and underscores, not taken."""
    told = words[0].removeprefix("name=") if len(words) == 1 and words[0].startswith("name=") else ""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", told):
        raise RequestError(
            f"{' '.join(words)!r} names no model; write name=NAME of small letters, digits and _, as name=my_model"
        )
    if told in known_models(root) or (root / "models" / told).exists():
        raise RequestError(f"name={told} is taken: models/{told} or configs/models/{told}.yaml exists")
    return told


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
