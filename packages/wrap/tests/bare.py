"""Loads repositories in a process that cannot import marline, uses them, and prints what it saw as JSON."""

import copy
import importlib.util
import inspect
import json
import pickle
import sys
import threading
from pathlib import Path
from typing import Any


class Absent:
    """Makes marline look as if it were not installed."""

    def find_spec(self, name: str, *_: object) -> None:
        if name.partition(".")[0] == "marline":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())

import torch  # noqa: E402 - all below must be loaded without marline
import torchvision  # noqa: E402
import transformers  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers.dynamic_module_utils import get_class_from_dynamic_module  # noqa: E402

hf: Any = transformers  # half of what is used here has no types
hf.utils.logging.disable_progress_bar()
PIXELS = torch.linspace(-2, 2, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)


def plain(stage: Path, source: str) -> torch.nn.Module:
    """The module as the checkpoint has it, built without the repository."""
    if source.startswith("torchvision:"):
        module: torch.nn.Module = torchvision.models.get_model(source.partition(":")[2], weights=None)
    else:
        spec = importlib.util.spec_from_file_location("source", stage.parent / "load" / "checkpoint" / "source.py")
        assert spec is not None
        assert spec.loader is not None
        code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
        module = code.init_function(**json.loads((stage / "repository" / "config.json").read_text())["init_kwargs"])
    module.load_state_dict(load_file(stage.parent / "load" / "checkpoint" / "model.safetensors"))
    return module.eval()


def use(stage: Path) -> dict[str, Any]:
    """One good call of the tracked model and of its second life, one bad call, and the untracked base beside it."""
    facts = json.loads((stage / "manifest.json").read_text())["facts"]
    source = json.loads((stage.parent / "load" / "manifest.json").read_text())["facts"]["source"]
    repository = stage / "repository"
    model = hf.AutoModelForImageClassification.from_pretrained(repository, trust_remote_code=True)
    base_class: Any = get_class_from_dynamic_module(facts["base_class"], str(repository))
    base = base_class.from_pretrained(repository, local_files_only=True)
    with torch.inference_mode():
        expected = plain(stage, source)(PIXELS)
        answers = [model(PIXELS).logits, base(PIXELS).logits, getattr(base, facts["exported_module"])(PIXELS)]
        try:
            model(PIXELS[:, :1])
            error = ""
        except RuntimeError as caught:
            error = f"{type(caught).__name__} from {inspect.trace()[-1].filename}"
        model.save_pretrained(stage / "again")
        again = hf.AutoModelForImageClassification.from_pretrained(stage / "again", trust_remote_code=True)
        answers += [again(PIXELS).logits]
    fresh = type(base)(base.config)
    return {
        "class": f"{type(model).__module__.rpartition('.')[2]}.{type(model).__name__}",
        "equal": [torch.equal(expected, answer) for answer in answers],
        "error": error,
        "reported_by": model.tracker is not None,
        "signatures_equal": inspect.signature(model.forward) == inspect.signature(base.forward),
        "keys_equal": list(model.state_dict()) == list(base.state_dict()),
        "copies": [copy.deepcopy(model).settings.model, pickle.loads(pickle.dumps(model)).settings.model],  # noqa: S301 - our own
        "loss": model(PIXELS, labels=torch.tensor([0, 1])).loss.item(),
        "label": model.config.id2label[0],
        "num_labels": model.config.num_labels,
        "dtype": str(model.dtype),
        "untouched": float(fresh.state_dict()[next(iter(fresh.state_dict()))].abs().max()) > 0,
        "again": json.loads((stage / "again" / "config.json").read_text()),
        "processor": processed(repository),
    }


def processed(repository: Path) -> list[int] | None:
    """The shape of an image after the repository's own processor."""
    if not (repository / "preprocessor_config.json").is_file():
        return None
    processor = hf.AutoImageProcessor.from_pretrained(repository)
    return list(processor(Image.new("RGB", (50, 40)), return_tensors="pt")["pixel_values"].shape)


def main() -> None:
    seen = [use(Path(stage)) for stage in sys.argv[1:]]
    config = hf.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", num_labels=2)
    other = hf.AutoModelForImageClassification.from_config(config)
    other(PIXELS)
    tail = {
        "other": f"{type(other).__module__}.{type(other).__name__}",
        "threads": sorted(thread.name for thread in threading.enumerate() if "marline" in thread.name),
        "marline": [name for name in sys.modules if name.partition(".")[0] == "marline"],
    }
    print(json.dumps({"models": seen, **tail}))


main()
