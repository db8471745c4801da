"""Stage 2: from a checkpoint to a Hugging Face repository that needs nothing of ours."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from marline.core import Manifest, RequestError, WrapConfig, progress, seal
from marline.telemetry import Settings, is_address, write_settings
from marline.wrap._card import card
from marline.wrap._custom_code import plan_custom_code
from marline.wrap._from_scratch import plan_from_scratch
from marline.wrap._module import plan_module
from marline.wrap._plan import Plan
from marline.wrap._push import check_push, push
from marline.wrap._requirements import requirements
from marline.wrap._torchscript import plan_torchscript
from marline.wrap._transformers import plan_transformers


def wrap(model: str, config: WrapConfig, loaded: Manifest, out: Path) -> Manifest:
    """Write `repository/`: config, weights, code, tracker and card; facts name its classes for export.

    Nothing is written before all that can be wrong with the request or the model has been looked at.
    """
    started = time.monotonic()
    _check(config)
    plan = _plan(model, config, loaded)
    needed = _requirements(plan, loaded)
    settings = Settings(
        collector_url=config.collector_url,
        model=model,
        detail=config.detail,
        sample_rate=config.sample_rate,
        version=loaded.digest[:12],
    )
    facts: dict[str, Any] = {
        **plan.facts,
        "kind": loaded.facts["kind"],
        "task": loaded.facts["task"],
        "collector_url": config.collector_url,
        "requirements": needed,
    }
    with TemporaryDirectory(dir=out, prefix=".staged-") as folder:  # until all is well
        repository = Path(folder, "repository")
        repository.mkdir()
        progress(0.2, "writing the repository")
        plan.write(repository)
        write_settings(settings, repository / "tracker.json")
        (repository / "requirements.txt").write_text("".join(f"{line}\n" for line in needed))
        (repository / "README.md").write_text(card(model, config, settings, loaded, facts), encoding="utf-8")
        if config.push:
            progress(0.8, f"uploading to {config.repository}")
            facts["pushed"] = push(repository, config)
        repository.rename(out / "repository")
    return seal(out, model=model, config=config, inputs=[loaded], facts=facts, started=started)


def _check(config: WrapConfig) -> None:
    if config.collector_url is not None and not is_address(config.collector_url):
        raise RequestError(
            f"wrap.collector_url={config.collector_url} is no http(s) address; write http://HOST:PORT/PATH, or null"
        )
    check_push(config)


def _plan(model: str, config: WrapConfig, loaded: Manifest) -> Plan:
    kind = loaded.facts["kind"]
    if kind == "handler":
        return plan_from_scratch(model, config, loaded)
    if kind == "torchscript":
        return plan_torchscript(model, config, loaded)
    if kind == "module":
        return plan_module(model, config, loaded)
    if loaded.facts["custom_code"]:
        return plan_custom_code(model, config, loaded)
    return plan_transformers(model, config, loaded)


def _requirements(plan: Plan, loaded: Manifest) -> list[str]:
    """What the repository's code and its processors import."""
    if loaded.facts["kind"] == "handler":
        return requirements({file.name: file.read_text(encoding="utf-8") for file in plan.foreign}, alone=False)
    processors = any(name.endswith("preprocessor_config.json") for name in plan.copies)
    seen = processors and loaded.facts.get("input") in {"image", "video"}
    code = {name: text for name, text in plan.code.items() if name != "marline_tracker.py"}
    code |= {file.name: file.read_text(encoding="utf-8") for file in plan.foreign}
    given = loaded.folder / "checkpoint" / "requirements.txt"
    code["the model"] = "import torch" + (", torchvision, PIL" if seen else "")
    return requirements(code, given.read_text() if given.is_file() else "")
