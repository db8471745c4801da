"""Replaces layers of a model by layers of one's own. One file, torch and the standard library only: repositories get a copy.

A new layer takes over the weights of the old one through `load_state_dict`, strictly; where its own are split or named
differently, its class says so in a state-dict pre-hook.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

FILE = Path(__file__)  # what is copied


class ComponentError(ValueError):
    """A layer cannot be replaced as asked."""


def swap_components(model: nn.Module, path: str, layer: type[nn.Module], kwargs: Mapping[str, Any] | None = None) -> list[str]:
    """Replace every layer that `path` names by one of class `layer`; the names of the layers.

    `path` is a dotted name in which `*` stands for one part or a piece of one, with or without the model's
    `base_model_prefix`. Arguments of the class are looked for in `kwargs`, in the old layer, in its parents (nearest first)
    and in the model's configuration and those inside it; what is found nowhere keeps its default.
    Raises ComponentError where nothing fits, an argument is missing, or the weights do not go in.
    """
    names = _matching(model, path)
    for name in names:
        old, parents = model.get_submodule(name), _parents(model, name)
        new = layer(**_arguments(layer, name, [old, *parents], dict(kwargs or {})))
        state = old.state_dict()
        reference = next((tensor for tensor in state.values() if tensor.is_floating_point()), None)
        if reference is not None:
            new.to(reference.device, reference.dtype)
        try:
            new.load_state_dict(state)
        except RuntimeError as error:
            raise ComponentError(
                f"{layer.__name__} does not take the weights of {name}: {error}; split or rename them in a "
                "load_state_dict pre-hook of the class"
            ) from None
        setattr(parents[0], name.rpartition(".")[2], new.train(old.training))
    return names


def _matching(model: nn.Module, path: str) -> list[str]:
    names = [name for name, _ in model.named_modules() if name]
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    for wanted in (path, f"{prefix}{path}", path.removeprefix(prefix)):
        found = [name for name in names if _fits(name.split("."), wanted.split("."))]
        if found:
            return found
    general = sorted({re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name in names})
    near = get_close_matches(path, general, n=5, cutoff=0.3)
    raise ComponentError(f"no layer of {type(model).__name__} is named {path!r}; near it are {', '.join(near) or general}")


def _fits(name: list[str], wanted: list[str]) -> bool:
    return len(name) == len(wanted) and all(map(fnmatchcase, name, wanted))


def _parents(model: nn.Module, name: str) -> list[nn.Module]:
    """What holds a layer, nearest first; the model itself is the last."""
    parts = name.split(".")[:-1]
    return [model.get_submodule(".".join(parts[:length])) for length in range(len(parts), -1, -1)]


def _arguments(layer: type[nn.Module], name: str, modules: list[nn.Module], told: dict[str, Any]) -> dict[str, Any]:
    """`modules` are the old layer, its parents, and last the model."""
    parameters = [
        one for one in inspect.signature(layer).parameters.values() if one.kind in {one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY}
    ]
    names = [one.name for one in parameters]
    if unknown := sorted(set(told) - set(names)):
        raise ComponentError(f"{layer.__name__} has no argument {', '.join(unknown)}; it has {', '.join(names)}")
    found: dict[str, Any] = {}
    for one in parameters:
        others = [other for other in names if other not in {"config", *told}]
        candidates = _configs_for(modules, others) if one.name == "config" else _values(one.name, modules)
        value = told[one.name] if one.name in told else next(candidates, one.default)
        if value is one.empty:
            raise ComponentError(
                f"{layer.__name__} needs {one.name!r}, which neither {name}, its parents nor the model's configuration has; "
                "give it in kwargs"
            )
        found[one.name] = value
    return found


def _values(name: str, modules: list[nn.Module]) -> Iterator[Any]:
    for module in modules:
        if name in vars(module):
            yield vars(module)[name]
        elif name in module._parameters:  # noqa: SLF001 - as in nn.Linear(bias=True): whether there is one
            yield module._parameters[name] is not None  # noqa: SLF001
    for config in _configs(getattr(modules[-1], "config", None)):
        if hasattr(config, name):
            yield getattr(config, name)


def _configs_for(modules: list[nn.Module], others: list[str]) -> Iterator[Any]:
    """The nearest configuration below the model's own, else an inner one that has all other arguments, else the model's."""
    for module in modules[:-1]:
        if hasattr(module, "config"):
            yield module.config
    outer, *inner = _configs(getattr(modules[-1], "config", None)) or [None]
    for config in inner:
        if others and all(hasattr(config, other) for other in others):
            yield config
    if outer is not None:
        yield outer


def _configs(config: Any) -> list[Any]:
    """A configuration and all inside it, outermost first."""
    if config is None:
        return []
    inner = [value for value in vars(config).values() if hasattr(value, "model_type") and hasattr(value, "to_dict")]
    return [config, *(found for one in inner for found in _configs(one))]
