"""Which packages the code of a repository needs."""

import ast
import sys
from collections.abc import Mapping
from importlib.metadata import packages_distributions, version

from marline.core import StageError


def requirements(code: Mapping[str, str]) -> list[str]:
    """`name==version` of every package that the files (name to text) import, as installed here.

    Raises StageError for an import that no installed package provides: nobody else could load such a repository.
    """
    providers = packages_distributions()
    found = set()
    for file, text in code.items():
        for module in _imports(text) - set(sys.stdlib_module_names):
            if module not in providers:
                raise StageError(
                    f"{file} imports {module!r}, which no installed package provides, so that the repository would work "
                    "nowhere else; put all of the model's own code into its one source file"
                )
            distribution = providers[module][0]
            found.add(f"{distribution}=={version(distribution).partition('+')[0]}")
    return sorted(found)


def _imports(text: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(text)))
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {module.partition(".")[0] for module in modules}
