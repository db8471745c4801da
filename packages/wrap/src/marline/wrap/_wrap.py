"""Stage 2: from a checkpoint to a Hugging Face repository that needs nothing of ours."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from marline.core import Manifest, RequestError, WrapConfig, progress, seal
from marline.telemetry import Settings, is_address, write_settings
from marline.wrap._code import code, render
from marline.wrap._names import Names, names
from marline.wrap._requirements import requirements

AUTO_CLASS = "AutoModelForImageClassification"
MODULE = "model"  # the attribute of the base class that holds the plain torch module


def wrap(model: str, config: WrapConfig, loaded: Manifest, out: Path) -> Manifest:
    """Write `repository/`: config, weights, code, tracker and card; facts name its classes for export."""
    started = time.monotonic()
    if config.collector_url is not None and not is_address(config.collector_url):
        raise RequestError(
            f"wrap.collector_url={config.collector_url} is no http(s) address; write http://HOST:PORT/PATH, or null"
        )
    called = names(model)
    checkpoint, repository = loaded.path("checkpoint"), out / "repository"
    repository.mkdir()
    files = code(called, loaded.facts["source"], checkpoint)
    needed = requirements(files)
    for name, text in files.items():
        (repository / name).write_text(text, encoding="utf-8")
    settings = Settings(config.collector_url, model, config.detail)
    write_settings(settings, repository / "tracker.json")
    (repository / "requirements.txt").write_text("\n".join(needed) + "\n")
    (repository / "README.md").write_text(_card(called, settings, loaded, needed), encoding="utf-8")
    _write_config(called, checkpoint, repository)
    progress(0.2, "writing the weights")
    _write_weights(checkpoint, repository)
    facts = {
        "base_class": f"modeling_{called.stem}.{called.base}",
        "tracked_class": f"tracked_{called.stem}.{called.tracked}",
        "auto_class": AUTO_CLASS,
        "exported_module": MODULE,
        "collector_url": config.collector_url,
        "requirements": needed,
    }
    return seal(out, model=model, config=config, inputs=[loaded], facts=facts, started=started)


def _write_config(called: Names, checkpoint: Path, repository: Path) -> None:
    """`config.json`, and the processor's where the checkpoint has one. `architectures` stays the untracked class.

    AutoModel is not mapped: it promises hidden states, and this model answers logits.
    """
    told: dict[str, Any] = json.loads((checkpoint / "config.json").read_text())
    content = {
        "model_type": f"marline_{called.stem}",
        "architectures": [called.base],
        "auto_map": {
            "AutoConfig": f"configuration_{called.stem}.{called.config}",
            AUTO_CLASS: f"tracked_{called.stem}.{called.tracked}",
        },
        "init_kwargs": told["init_kwargs"],
        "id2label": told["id2label"],
        "label2id": {label: int(index) for index, label in told["id2label"].items()},
    }
    (repository / "config.json").write_text(json.dumps(content, indent=2) + "\n")
    processor = checkpoint / "preprocessor_config.json"
    if processor.is_file():
        shutil.copy(processor, repository)


def _write_weights(checkpoint: Path, repository: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    inside = {f"{MODULE}.{key}": value for key, value in weights.items()}
    save_file(inside, repository / "model.safetensors", metadata={"format": "pt"})


def _card(called: Names, settings: Settings, loaded: Manifest, needed: list[str]) -> str:
    told = {key: loaded.facts[key] for key in ("source", "task", "weights", "parameters")}
    return render(
        "README.md", {"names": called, "settings": settings, "auto_class": AUTO_CLASS, "requirements": needed, **told}
    )
