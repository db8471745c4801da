"""A plain torch module (torchvision, timm, own code) as a transformers model whose code is generated."""

import importlib
import inspect
import json
import sys
import tempfile
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from marline.core import Manifest, RequestError, WrapConfig
from marline.wrap._components import Components, read_components
from marline.wrap._names import Names, names
from marline.wrap._plan import Plan, Tracked, digest, is_weights, render, side_files, tracked_code

ATTRIBUTE = "model"  # of the generated class: the plain torch module
CLASSIFIERS = {  # task: the AutoClass's ending, and what transformers' own models of it answer
    "audio-classification": ("AudioClassification", "SequenceClassifierOutput"),
    "image-classification": ("ImageClassification", "ImageClassifierOutput"),
    "text-classification": ("SequenceClassification", "SequenceClassifierOutput"),
    "video-classification": ("VideoClassification", "ImageClassifierOutput"),
}
MAIN_INPUT = {"audio": "input_values", "image": "pixel_values", "text": "input_ids", "video": "pixel_values"}


@dataclass(frozen=True, slots=True)
class Origin:
    """How the generated code builds the module: the library it imports, if any, and an expression."""

    library: str | None
    expression: str
    function: str | None = None


def plan_module(model: str, config: WrapConfig, loaded: Manifest) -> Plan:
    """A generated configuration, modeling and tracked file; weights under the attribute `model`."""
    if config.methods:
        raise RequestError(f"wrap.methods={list(config.methods)}: a plain torch module has forward alone; leave it empty")
    called, checkpoint = names(model), loaded.path("checkpoint")
    components = read_components(config.components)
    told = json.loads((checkpoint / "config.json").read_text())
    head = CLASSIFIERS[loaded.facts["task"]][0] if loaded.facts["task"] in CLASSIFIERS else ""
    base, auto_class = (f"{called.camel}For{head}", f"AutoModelFor{head}") if head else (f"{called.camel}Model", "AutoModel")
    code = _code(called, base, loaded.facts, checkpoint, components)
    write: Callable[[Path], None] = partial(_move, checkpoint)
    if components.swaps:
        module = _rebuilt(called, code, told["init_kwargs"], checkpoint)
        components.apply(module)
        write = partial(_save, module)
    return Plan(
        facts={
            "base_class": f"modeling_{called.stem}.{base}",
            "tracked_class": f"tracked_{called.stem}.{base}",
            "auto_class": auto_class,
            "exported_module": ATTRIBUTE,
            "methods": ["forward"],
        },
        code=code,
        config=_config(called, base, auto_class, told),
        copies={name: file for name, file in side_files(checkpoint).items() if name != "source.py" and not is_weights(name)},
        write_weights=write,
    )


def _code(called: Names, base: str, facts: Mapping[str, Any], checkpoint: Path, components: Components) -> dict[str, str]:
    origin = _origin(facts["source"])
    head, output = CLASSIFIERS.get(facts["task"], ("", "ModelOutput"))
    values = {
        "names": called,
        "base": base,
        "origin": origin,
        "components": components,
        "classifies": head != "",
        "output": output,
        "main_input": MAIN_INPUT.get(facts.get("input", "image"), "inputs"),
    }
    files = {f"modeling_{called.stem}.py": render("modeling_module.py", **values), **components.code}
    files |= tracked_code(called.stem, [Tracked(module=f"modeling_{called.stem}", name=base, methods=("forward",))])
    if origin.function is not None:
        files[f"source_{called.stem}.py"] = (checkpoint / "source.py").read_text(encoding="utf-8")
    own = render("configuration_module.py", names=called, base=base, digest=digest(files))
    return {f"configuration_{called.stem}.py": own, **files}


def _origin(source: str) -> Origin:
    kind, _, rest = source.partition(":")
    if kind == "python":
        function = rest.rpartition(":")[2]
        return Origin(None, f"{function}(**config.init_kwargs)", function)
    if kind == "timm":
        return Origin("timm", f"timm.create_model({json.dumps(rest)}, pretrained=False, **config.init_kwargs)")
    builder = importlib.import_module("torchvision").models.get_model_builder(rest)
    told = "config.init_kwargs"
    if "weights_backbone" in inspect.signature(builder).parameters:  # detectors and segmenters would download one
        told = f'{{"weights_backbone": None, **{told}}}'
    return Origin("torchvision", f"torchvision.models.get_model({json.dumps(rest)}, weights=None, **{told})")


def _config(called: Names, base: str, auto_class: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """What `config.json` says. A classifier is no AutoModel: that promises hidden states, and this answers logits."""
    labels = told.get("id2label") or {}
    return {
        "model_type": f"marline_{called.stem}",
        "architectures": [base],
        "auto_map": {
            "AutoConfig": f"configuration_{called.stem}.{called.config}",
            auto_class: f"tracked_{called.stem}.{base}",
        },
        "init_kwargs": told["init_kwargs"],
        **({"id2label": labels, "label2id": {label: int(index) for index, label in labels.items()}} if labels else {}),
    }


def _move(checkpoint: Path, repository: Path) -> None:
    """Write the weights under their new names, shard by shard."""
    for file in sorted(checkpoint.glob("*.safetensors")):
        _write(load_file(file), repository / file.name)
    index = checkpoint / "model.safetensors.index.json"
    if index.is_file():
        told = json.loads(index.read_text())
        told["weight_map"] = {f"{ATTRIBUTE}.{key}": file for key, file in told["weight_map"].items()}
        (repository / index.name).write_text(json.dumps(told, indent=2) + "\n")


def _save(module: nn.Module, repository: Path) -> None:
    _write({key: value.contiguous().clone() for key, value in module.state_dict().items()}, repository / "model.safetensors")


def _write(weights: Mapping[str, Any], file: Path) -> None:
    save_file({f"{ATTRIBUTE}.{key}": value for key, value in weights.items()}, file, metadata={"format": "pt"})


def _rebuilt(called: Names, code: Mapping[str, str], init_kwargs: Mapping[str, Any], checkpoint: Path) -> nn.Module:
    """The plain module with its weights and old layers, by the repository's own code."""
    with tempfile.TemporaryDirectory(prefix="marline-") as folder:
        for name, text in code.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        package = types.ModuleType(f"rebuilt_{Path(folder).name.replace('-', '_')}")
        package.__path__ = [folder]
        sys.modules[package.__name__] = package
        config = getattr(importlib.import_module(f"{package.__name__}.configuration_{called.stem}"), called.config)
        module: nn.Module = importlib.import_module(f"{package.__name__}.modeling_{called.stem}").build(
            config(init_kwargs=dict(init_kwargs))
        )
    weights = {key: value for file in checkpoint.glob("*.safetensors") for key, value in load_file(file).items()}
    module.load_state_dict(weights)
    return module.eval()
