"""Loads repositories in a process that cannot import marline, uses them, and prints what it saw as JSON."""

import copy
import importlib.util
import inspect
import json
import pickle
import sys
import threading
from collections import Counter
from collections.abc import Mapping
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
SENTENCE = "This is a long example input string containing special characters .$?-, numbers 2872 234 12 and words."
TALLY: Counter[str] = Counter()  # what must be reported


def call(model: Any, method: str = "forward", /, **inputs: Any) -> Any:
    """The answer of a tracked method, or its exception; either is one report."""
    try:
        answer = model(**inputs) if method == "forward" else getattr(model, method)(**inputs)
    except Exception as error:  # whatever the model raises
        answer = error
    if model.tracker is not None:
        TALLY[f"{model.settings.model} {method} {'fail' if isinstance(answer, Exception) else 'success'}"] += 1
    return answer


def tensor(told: Any) -> torch.Tensor:
    """Numbers as they are, or a shape filled with different ones."""
    if isinstance(told, list):
        return torch.tensor(told)
    shape = torch.Size(told["shape"])
    return torch.linspace(-2, 2, shape.numel()).reshape(shape)


def distance(one: Any, other: Any) -> float:
    """The largest difference between two models' answers."""
    pairs = list(zip(_tensors(one), _tensors(other), strict=True))
    assert pairs
    return max((left.float() - right.float()).abs().max().item() for left, right in pairs)


def _tensors(answer: Any) -> list[torch.Tensor]:
    values = list(answer.values()) if isinstance(answer, Mapping) else [answer]
    return [value for value in values if isinstance(value, torch.Tensor)]


def original(run: Path, facts: Mapping[str, Any]) -> Any:
    """The model as the checkpoint has it, without the repository: something to call with named inputs."""
    checkpoint = run / "load" / "checkpoint"
    told = json.loads((run / "load" / "manifest.json").read_text())["facts"]
    if facts["kind"] == "transformers":
        return getattr(hf, facts["auto_class"]).from_pretrained(checkpoint, trust_remote_code=told["custom_code"])
    if told["source"].startswith("torchvision:"):
        module: torch.nn.Module = torchvision.models.get_model(told["source"].partition(":")[2], weights=None)
    else:
        spec = importlib.util.spec_from_file_location("source", checkpoint / "source.py")
        assert spec is not None
        assert spec.loader is not None
        code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
        module = getattr(code, told["source"].rpartition(":")[2])(**told["init_kwargs"])
    module.load_state_dict(load_file(checkpoint / "model.safetensors"))
    module.eval()
    return lambda **inputs: module(*inputs.values())


def use(run: Path) -> dict[str, Any]:
    """Good and bad calls of the tracked model, of its further lives, and of the untracked ones beside it."""
    repository, told = run / "wrap" / "repository", json.loads((run / "use.json").read_text())
    facts = json.loads((run / "wrap" / "manifest.json").read_text())["facts"]
    auto = getattr(hf, facts["auto_class"])
    inputs, bad = ({name: tensor(value) for name, value in told[key].items()} for key in ("inputs", "bad"))
    model = auto.from_pretrained(repository, trust_remote_code=True)
    base_class: Any = get_class_from_dynamic_module(facts["base_class"], str(repository))
    base, plain = base_class.from_pretrained(repository, local_files_only=True), original(run, facts)
    with torch.inference_mode():
        expected = plain(**inputs)
        found = {"tracked": distance(expected, call(model, **inputs)), "base": distance(expected, base(**inputs))}
        seen: dict[str, Any] = {"error": _error(call(model, **bad)), "base_error": _error(_raised(base, bad))}
        found["saved"] = distance(expected, call(_again(model, auto, run / "again"), **inputs))
        if facts["exported_module"]:
            inside = getattr(base, facts["exported_module"])(*inputs.values())
            found["inside"] = distance(expected, inside)
        if "generate" in told:
            settings = {"max_new_tokens": 4, "do_sample": False}
            found["generated"] = distance(plain.generate(**inputs, **settings), call(model, "generate", **inputs, **settings))
    seen |= {"distance": found, **_shape(model, base), **_files(run)}
    if facts["kind"] == "transformers" and facts["base_class"].startswith("modeling_") and run.name != "own":
        seen |= _stock(repository, auto, told, inputs)
    if "labels" in told:
        seen |= _train(model, auto, {**inputs, "labels": torch.tensor(told["labels"])}, run / "tuned")
    return seen


def _again(model: Any, auto: Any, folder: Path) -> Any:
    model.save_pretrained(folder)
    return auto.from_pretrained(folder, trust_remote_code=True)


def _raised(model: Any, bad: Mapping[str, Any]) -> Exception:
    try:
        model(**bad)
    except Exception as error:  # whatever the model raises
        return error
    raise AssertionError("the call was to fail")


def _error(error: Exception) -> list[str]:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    assert trace is not None
    return [type(error).__name__, repr(error.args), trace.tb_frame.f_code.co_filename]


def _shape(model: Any, base: Any) -> dict[str, Any]:
    methods = ["forward", *(["generate"] if hasattr(base, "generate") else [])]
    fresh = type(base)(base.config)
    return {
        "class": f"{type(model).__module__.rpartition('.')[2]}.{type(model).__name__}",
        "reported_by": model.tracker is not None,
        "signatures": [inspect.signature(getattr(model, name)) == inspect.signature(getattr(base, name)) for name in methods],
        "generates": [hasattr(model, "generate"), hasattr(base, "generate")],
        "keys_equal": list(model.state_dict()) == list(base.state_dict()),
        "copies": [copy.deepcopy(model).settings.model, pickle.loads(pickle.dumps(model)).settings.model],  # noqa: S301 - our own
        "label": model.config.id2label[0],
        "num_labels": model.config.num_labels,
        "dtype": str(model.dtype),
        "untouched": float(fresh.state_dict()[next(iter(fresh.state_dict()))].abs().max()) > 0,
    }


def _files(run: Path) -> dict[str, Any]:
    saved, processor = run / "again", None
    repository = run / "wrap" / "repository"
    if (repository / "preprocessor_config.json").is_file():
        images = hf.AutoImageProcessor.from_pretrained(repository)
        processor = list(images(Image.new("RGB", (50, 40)), return_tensors="pt")["pixel_values"].shape)
    return {
        "saved_config": json.loads((saved / "config.json").read_text()),
        "saved_files": sorted(file.name for file in saved.iterdir()),
        "processor": processor,
    }


def _stock(repository: Path, auto: Any, told: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What becomes of other ways to load a repository whose architecture transformers has."""
    hf.utils.logging.set_verbosity_error()  # a bare model says which weights of the head it leaves
    seen: dict[str, Any] = {}
    if "tokens" in told:
        folders = (repository.parents[1] / "load" / "checkpoint", repository)
        tokens = [hf.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)(SENTENCE) for folder in folders]
        seen["tokens"] = [list(each["input_ids"]) for each in tokens]
    if "base" in told:
        untrusted = auto.from_pretrained(repository)
        seen["untrusted"] = f"{type(untrusted).__module__}.{type(untrusted).__name__}"
        bare = getattr(hf, told["base"]).from_pretrained(repository, trust_remote_code=True)
        answer = call(bare, **inputs)
        seen["bare"] = [type(bare).__name__, type(bare).__module__.rpartition(".")[2], *answer.keys()]
        seen["contaminated"] = _others(repository)
    if repository.parents[1].name == "bert":
        seen |= _arguments(repository)
    hf.utils.logging.set_verbosity_warning()
    return seen


def _others(repository: Path) -> list[str]:
    """Classes of plain models with the same configuration class, loaded and made while the wrapped one is there."""
    plain = repository.parents[1] / "load" / "checkpoint"
    config = hf.AutoConfig.from_pretrained(plain)
    models = [hf.AutoModel.from_pretrained(plain), hf.AutoModel.from_config(config), hf.AutoModel.from_pretrained(repository)]
    for model in models:
        model(torch.tensor([[1, 2]]))
    return sorted({type(model).__module__.partition(".")[0] for model in models})


def _arguments(repository: Path) -> dict[str, Any]:
    """Arguments of the constructor: a good one, and one that does not exist."""
    kept = hf.AutoModel.from_pretrained(repository, trust_remote_code=True, add_pooling_layer=False)
    errors = []
    for trust in (True, False):
        try:
            hf.AutoModel.from_pretrained(repository, trust_remote_code=trust, no_such_argument=1)
        except TypeError as error:
            errors.append(str(error))
    TALLY["bert __init__ fail"] += 1
    return {"pooler": kept.pooler is None, "init_errors": errors}


def _train(model: Any, auto: Any, batch: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Two steps, and whether the model that was saved after them is the one that was trained."""
    optimizer, losses = torch.optim.SGD(model.train().parameters(), lr=0.01), []
    for _ in range(2):
        answer = call(model, **batch)
        answer.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(answer.loss.item())
    model.eval()
    with torch.inference_mode():
        tuned = _again(model, auto, folder)
        moved = distance(call(model, **batch), call(tuned, **batch))
    return {"loss": losses, "moved": moved, "still": tuned.tracker is not None}


def main() -> None:
    seen = {Path(run).name: use(Path(run)) for run in sys.argv[1:]}
    tail = {
        "tally": TALLY,
        "threads": sorted(thread.name for thread in threading.enumerate() if "marline" in thread.name),
        "marline": [name for name in sys.modules if name.partition(".")[0] == "marline"],
    }
    print(json.dumps({"models": seen, **tail}))


main()
