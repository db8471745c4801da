"""Layers of the user's own (`wrap.components`): read, checked and put in place of the model's."""

import ast
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from marline.core import Component, RequestError, import_file
from marline.wrap.components import FILE, ComponentError, swap_components

ALLOWED = {"torch", "transformers", *sys.stdlib_module_names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """One kind of layer to replace: `module` is the name of the file in the repository, without `.py`."""

    path: str
    kwargs: dict[str, Any]
    module: str
    name: str
    layer: type[nn.Module]


@dataclass(frozen=True, slots=True)
class Components:
    """All replacements, and the code that a repository needs for them."""

    swaps: tuple[Swap, ...]
    code: dict[str, str]

    def imports(self) -> list[tuple[str, str]]:
        """Modules and names that the repository's code imports, in pairs."""
        ours = {("marline_components", "swap_components")} if self.swaps else set()
        return sorted(ours | {(swap.module, swap.name) for swap in self.swaps})

    def apply(self, model: nn.Module) -> None:
        """Replace the layers of a model that has its weights."""
        for swap in self.swaps:
            try:
                swap_components(model, swap.path, swap.layer, swap.kwargs)
            except ComponentError as error:
                raise RequestError(f"wrap.components, {swap.path}: {error}") from None


def read_components(told: Sequence[Component]) -> Components:
    """Load the classes, each from a file that needs torch and transformers alone; RequestError for any other."""
    swaps, code = [], {"marline_components.py": FILE.read_text(encoding="utf-8")} if told else {}
    origins: dict[str, Path] = {}
    for one in told:
        file, _, name = one.layer.rpartition(":")
        module = f"component_{Path(file).stem}"
        if origins.setdefault(module, Path(file)) != Path(file):
            raise RequestError(f"wrap.components: {origins[module]} and {file} have one name; rename one of them")
        code[f"{module}.py"] = _read(Path(file))
        swaps.append(Swap(path=one.path, kwargs=one.kwargs, module=module, name=name, layer=_layer(Path(file), name)))
    return Components(tuple(swaps), code)


def _read(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
        nodes = list(ast.walk(ast.parse(text)))
    except (OSError, ValueError, SyntaxError) as error:
        raise RequestError(f"wrap.components: {file} cannot be read as Python: {error}") from None
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {"." * node.level + (node.module or "") for node in nodes if isinstance(node, ast.ImportFrom)}
    if foreign := sorted(module for module in modules if module.partition(".")[0] not in ALLOWED):
        raise RequestError(
            f"wrap.components: {file} imports {', '.join(foreign)}; a layer's file is copied into the repository alone and may "
            "import the standard library, torch and transformers"
        )
    return text


def _layer(file: Path, name: str) -> type[nn.Module]:
    try:
        module = import_file(file, f"component_{file.stem}")
    except Exception as error:  # the user's code
        raise RequestError(f"wrap.components: {file} fails when imported: {type(error).__name__}: {error}") from error
    layer = getattr(module, name, None)
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise RequestError(f"wrap.components: {file} has no torch module class {name!r}")
    return layer
