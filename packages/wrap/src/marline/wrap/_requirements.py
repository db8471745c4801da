"""Which packages the code of a repository needs."""

import ast
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import packages_distributions, version

from marline.core import StageError


def requirements(code: Mapping[str, str], also: str = "", *, alone: bool = True) -> list[str]:
    """`name==version` of every package that the files (name to text) import, as installed here, and the lines of `also`.

    Raises StageError for an import that no installed package provides: nobody else could load such a repository. It is left
    out where the files are not `alone`, as a handler is not in its archive. Imports in a `try` are the code's own business, as
    they are for transformers.
    """
    providers = packages_distributions()
    told = [line.strip() for line in also.splitlines() if line.strip() and not line.startswith("#")]
    found = set()
    for file, text in code.items():
        for module in {name.partition(".")[0] for name in _imports(ast.parse(text))} - set(sys.stdlib_module_names):
            if module not in providers and not alone:
                continue
            if module not in providers:
                raise StageError(
                    f"{file} imports {module!r}, which no installed package provides, so that the repository would work "
                    "nowhere else; put all of the model's own code into its one source file"
                )
            distribution = providers[module][0]
            found.add(f"{distribution}=={version(distribution).partition('+')[0]}")
    return sorted({*told, *(line for line in found if not any(one.startswith(line.partition("==")[0]) for one in told))})


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Try):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)
