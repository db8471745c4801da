"""Loads the repositories of all models in a process that cannot import marline, uses each, and prints what it saw as JSON.

python bare_models.py FOLDER, which holds NAME/load and NAME/wrap as the stages left them.
"""

import inspect
import json
import sys
import wave
from pathlib import Path
from typing import Any


class Absent:
    """Makes marline look as if it were not installed."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "marline":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())

import numpy as np  # noqa: E402 - all below must be loaded without marline
import torch  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from transformers.dynamic_module_utils import get_class_from_dynamic_module  # noqa: E402

hf: Any = transformers  # half of what is used here has no types
hf.utils.logging.disable_progress_bar()


def inputs(kind: str, repository: Path, samples: list[Path], model: Any) -> dict[str, Any]:
    """The first two samples as this model's own processor makes them."""
    if kind == "text":
        tokenizer = hf.AutoTokenizer.from_pretrained(repository)
        texts = [file.read_text() for file in samples[:2]]
        encoded = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
        return {key: value for key, value in encoded.items() if key in inspect.signature(model.forward).parameters}
    if kind == "audio":
        processor = hf.AutoFeatureExtractor.from_pretrained(repository)
        with wave.open(str(samples[0])) as file:
            sound = np.frombuffer(file.readframes(file.getnframes()), np.int16) / 2**15
        return dict(processor([sound, sound[::-1].copy()], sampling_rate=16000, return_tensors="pt"))
    if kind == "video":
        processor = hf.AutoVideoProcessor.from_pretrained(repository)
        return dict(processor(torch.from_numpy(np.load(samples[0])).permute(0, 3, 1, 2), return_tensors="pt"))
    if (repository / "preprocessor_config.json").is_file():
        processor = hf.AutoImageProcessor.from_pretrained(repository)
        pictures = [Image.open(file).convert("RGB") for file in samples[:2]]
        wanted = inspect.signature(model.forward).parameters
        return {key: value for key, value in processor(pictures, return_tensors="pt").items() if key in wanted}
    return {"pixel_values": torch.linspace(0, 1, 2 * 8 * 8).reshape(2, 1, 8, 8)}  # digits_cnn brings its own preparation


def leaves(output: Any) -> list[torch.Tensor]:
    """All tensors of an output, in order."""
    if isinstance(output, torch.Tensor):
        return [output]
    values = output.values() if hasattr(output, "values") else output if isinstance(output, list | tuple) else []
    return [leaf for value in values for leaf in leaves(value)]


def use(folder: Path) -> dict[str, Any]:
    """One good call, one bad call, and one of generate where there is one, of the tracked model and of its base."""
    loaded, wrapped = (json.loads((folder / stage / "manifest.json").read_text())["facts"] for stage in ("load", "wrap"))
    repository, samples = folder / "wrap" / "repository", sorted((folder / "load" / "sample").iterdir())
    tracked = getattr(hf, wrapped["auto_class"]).from_pretrained(repository, trust_remote_code=True).eval()
    base_class: Any = get_class_from_dynamic_module(wrapped["base_class"], str(repository))
    base = base_class.from_pretrained(repository, local_files_only=True).eval()
    asked = inputs(loaded["input"], repository, samples, tracked)
    methods = ["forward", *(["generate"] if wrapped["auto_class"] == "AutoModelForCausalLM" else [])]
    errors = []
    with torch.inference_mode():
        pairs = [(leaves(tracked(**asked)), leaves(base(**asked)))]
        if "generate" in methods:
            how = {"max_new_tokens": 8, "do_sample": False}
            pairs.append((leaves(tracked.generate(**asked, **how)), leaves(base.generate(**asked, **how))))
        for model in (tracked, base):
            try:
                model(**dict.fromkeys(asked, torch.zeros(1, 1, 1, 1, 1, 1)))
            except Exception as error:  # which one is the question
                errors.append((type(error).__name__, str(error)))
    return {
        "tensors": [len(left) for left, _ in pairs],
        "equal": all(len(a) == len(b) and all(map(torch.equal, a, b)) for a, b in pairs),
        "signature": str(inspect.signature(tracked.forward)) == str(inspect.signature(base.forward)),
        "errors": errors,
        "methods": methods,
        "labels": labels(base, asked),
    }


def labels(model: Any, asked: dict[str, Any]) -> list[str]:
    """What a classifier of images takes the samples for."""
    if not hasattr(model.config, "id2label") or "pixel_values" not in asked or asked["pixel_values"].ndim != 4:
        return []
    with torch.inference_mode():
        output = model(**asked)
    return [str(model.config.id2label.get(int(row.argmax()))) for row in output.logits] if hasattr(output, "logits") else []


if __name__ == "__main__":
    print(json.dumps({folder.name: use(folder) for folder in sorted(Path(sys.argv[1]).iterdir())}))
