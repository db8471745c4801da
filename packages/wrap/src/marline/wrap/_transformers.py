"""An architecture that transformers has: classes of the same names, on a configuration class of this repository's own."""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from marline.core import Manifest, StageError, WrapConfig
from marline.wrap._components import Components, read_components
from marline.wrap._names import Names, names
from marline.wrap._plan import Plan, Tracked, check_methods, digest, is_weights, render, side_files, tracked_code

ModelClass = type[Any]  # a PreTrainedModel; that and PreTrainedConfig take seconds to import
ConfigClass = type[Any]


def plan_transformers(model: str, config: WrapConfig, loaded: Manifest) -> Plan:
    """A tracked class for every class that transformers has for this configuration; weights as they are.

    AutoModel is the bare model, AutoModelFor... the one with that head. `architectures` and `model_type` stay, so whoever
    chooses by them, or does not trust remote code, gets transformers' own class.
    """
    called, checkpoint = names(model), loaded.path("checkpoint")
    told = json.loads((checkpoint / "config.json").read_text())
    stock = _stock(told)
    autos = _autos(stock, told.get("architectures") or ())
    classes = _classes(told.get("architectures") or (), autos)
    base = autos.get(loaded.facts["auto_class"], classes[0])
    check_methods(config.methods, base.__name__, _methods(base))
    components = read_components(config.components)
    auto_map = {
        "AutoConfig": f"configuration_{called.stem}.{stock.__name__}",
        loaded.facts["auto_class"]: f"tracked_{called.stem}.{base.__name__}",
        **{auto: f"tracked_{called.stem}.{one.__name__}" for auto, one in autos.items()},
    }
    plan = Plan(
        facts={
            "base_class": f"modeling_{called.stem}.{base.__name__}",
            "tracked_class": auto_map[loaded.facts["auto_class"]],
            "auto_class": loaded.facts["auto_class"],
            "exported_module": None,
            "methods": list(_tracked(base, "", config.methods).methods),
        },
        code=_code(called, stock, classes, components, config.methods),
        config={**told, "auto_map": auto_map},
        copies=side_files(checkpoint),
    )
    return _converted(plan, components, classes[0], loaded) if components.swaps else plan


def _code(
    called: Names,
    stock: ConfigClass,
    classes: Sequence[ModelClass],
    components: Components,
    methods: Sequence[str],
) -> dict[str, str]:
    modeling = f"modeling_{called.stem}"
    values = {"names": called, "config": stock.__name__, "classes": [one.__name__ for one in classes], "components": components}
    files = {f"{modeling}.py": render("modeling_transformers.py", **values), **components.code}
    files |= tracked_code(called.stem, (_tracked(one, modeling, methods) for one in classes))
    return {f"configuration_{called.stem}.py": render("configuration_transformers.py", **values, digest=digest(files)), **files}


def _converted(plan: Plan, components: Components, architecture: ModelClass, loaded: Manifest) -> Plan:
    """The plan with the weights of the new layers in place of the checkpoint's."""
    changed = architecture.from_pretrained(loaded.path("checkpoint"), local_files_only=True, dtype="auto")
    components.apply(changed)
    return replace(
        plan,
        copies={name: file for name, file in plan.copies.items() if not is_weights(name)},
        write_weights=partial(_save, changed, loaded.config["max_shard_size"]),
    )


def _save(model: Any, max_shard_size: str, repository: Path) -> None:
    told = (repository / "config.json").read_bytes()
    model.save_pretrained(repository, max_shard_size=max_shard_size)
    (repository / "config.json").write_bytes(told)  # ours


def _stock(told: Mapping[str, Any]) -> ConfigClass:
    kind = str(told.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise StageError(f"transformers {transformers.__version__} knows no model_type {kind!r}; is its code missing?")
    found: ConfigClass = CONFIG_MAPPING[kind]
    return found


def _autos(stock: ConfigClass, architectures: Sequence[str]) -> dict[str, ModelClass]:
    """AutoClasses and what they stand for with this configuration.

    Left out is a class for a part of it (a language model on a multi-modal configuration): transformers passes on that
    part for its own classes alone.
    """
    found = {}
    for name in modeling_auto.__all__:
        mapping = getattr(getattr(modeling_auto, name), "_model_mapping", None)
        if not name.startswith("Auto") or mapping is None or stock not in mapping:
            continue
        options = mapping[stock]
        options = options if isinstance(options, tuple) else (options,)
        chosen: ModelClass = next((one for one in options if one.__name__ in architectures), options[0])
        if chosen.config_class not in stock.sub_configs.values():
            found[name] = chosen
    return found


def _classes(architectures: Sequence[str], autos: Mapping[str, ModelClass]) -> list[ModelClass]:
    """Every class once, the architectures first."""
    own: list[Any] = [getattr(transformers, name, None) for name in architectures]
    if None in own:
        raise StageError(f"transformers {transformers.__version__} lacks one of the architectures {list(architectures)}")
    return list(dict.fromkeys([*own, *autos.values()]))


def _tracked(one: ModelClass, module: str, methods: Sequence[str]) -> Tracked:
    """What the class itself has: one that cannot generate must not look as if it could."""
    generates = ("generate",) if one.can_generate() else ()
    more = tuple(name for name in methods if name not in {"forward", "generate"} and name in _methods(one))
    return Tracked(module=module, name=one.__name__, methods=("forward", *generates, *more))


def _methods(one: ModelClass) -> set[str]:
    """Names of what is called on a model: no attributes, properties or class methods."""
    return {name for name in dir(one) if inspect.isfunction(inspect.getattr_static(one, name))}
