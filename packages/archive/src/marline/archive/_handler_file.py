"""What a handler file defines, read from its source: nobody's code runs while an archive is built.

TorchServe imports the file and takes the named function, else a function `handle`, else the one class defined in it; it
refuses more than one (`ts/model_loader.py`). Its documentation promises that the first of several is the handler: where there
are several, a module of ours with one class, derived from the right one, takes their place.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.machinery import PathFinder
from pathlib import Path

from marline.core import RequestError

ENTRY = "marline_entry.py"
FACTORY = "handler_factory"
NO_HANDLERS = (  # bases without a `handle`, and calls that make classes without one
    *("object", "Module", "Exception", "Protocol", "Enum", "IntEnum", "StrEnum", "Flag"),
    *("NamedTuple", "namedtuple", "TypedDict", "make_dataclass"),
)
MAKERS = (FACTORY, "type", *NO_HANDLERS)


@dataclass(frozen=True, slots=True)
class Entry:
    """The manifest's handler, and the source of `marline_entry.py` where one is needed."""

    handler: str
    generated: str | None


@dataclass(frozen=True, slots=True)
class _Class:
    name: str
    bases: tuple[str, ...]  # last parts of their names; FACTORY where it is made by a call of it
    handles: bool
    written: bool = True  # by a class statement or the factory; an alias, say, only counts


def entry_of(file: Path, function: str | None) -> Entry:
    """How TorchServe is to be pointed at a handler file; RequestError where it could not use it."""
    tree = parsed(file)
    names, open_ended = _bound(tree)
    classes = _classes(tree)
    own = {one.name for one in classes}
    if function is not None and function not in names and not open_ended:
        near = get_close_matches(function, names, n=1)
        raise RequestError(f"{file.name} defines no {function!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if (function is not None and function not in own) or (function is None and "handle" in names - own):
        return Entry(f"{file.name}:{function}" if function else file.name, None)
    able = [one for one in classes if (one.written if function is None else one.name == function) and _may_handle(one, classes)]
    if not able and open_ended and function is None:
        return Entry(file.name, None)  # a function handle may come with `import *`
    if not able:
        neither = "there is neither a function handle nor a class with such a method"
        what = f"{function} has no handle method" if function else neither
        raise RequestError(f"{file.name}: {what}; name what serves, {file.name}:NAME")
    served = able[0] if function else _served(able)
    return Entry(file.name, None) if len(classes) == 1 else Entry(ENTRY, _source(file, served.name))


def class_count(source: bytes) -> int:
    """How many classes TorchServe would find in a module; 0 where `source` is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0
    names, _ = _bound(tree)
    classes = _classes(tree)
    return 1 if "handle" in names - {one.name for one in classes} else len(classes)


def parsed(file: Path) -> ast.Module:
    """The syntax of a Python file; RequestError where it has none."""
    try:
        return ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise RequestError(f"{file}, line {error.lineno}: {error.msg}; it could not be imported on the server") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise RequestError(f"{file} is no Python: {error}") from None


def imported(tree: ast.Module) -> set[str]:
    """The top-level modules a file imports, wherever in it."""
    nodes = list(ast.walk(tree))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {name.split(".")[0] for name in names}


def refuse_shadow(file: Path) -> None:
    """A handler is imported before all else of its name: `json.py` would be everybody's json."""
    name = file.stem
    installed = [place for place in sys.path if place.endswith(("site-packages", "dist-packages"))]
    spec = PathFinder.find_spec(name, installed)
    if name in sys.stdlib_module_names or (spec is not None and spec.origin is not None):
        raise RequestError(f"{file.name} would take the place of the module {name} for all that imports it; rename it")


def _source(file: Path, name: str) -> str:
    return f'''"""Generated: TorchServe takes a module with one class, and {file.name} defines others beside {name}."""

from importlib import import_module


class Handler(import_module({file.stem!r}).{name}):
    pass
'''


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported, those in `if` and `try` too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)) and not isinstance(
            child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        ):
            yield from _statements(child)


def _bound(tree: ast.Module | ast.ClassDef) -> tuple[set[str], bool]:
    """The names of a module or class, and whether `import *` may bring more."""
    names: set[str] = set()
    for statement in _statements(tree):
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(statement.name)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.split(".")[0] for alias in statement.names}
        else:
            parts = [child for child in ast.iter_child_nodes(statement) if not isinstance(child, ast.stmt)]
            nodes = [node for part in parts for node in ast.walk(part)]
            names |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names - {"*"}, "*" in names


def _classes(tree: ast.Module) -> list[_Class]:
    """What TorchServe would count as classes of the module, in the order of the file: aliases and made ones too."""
    found: list[_Class] = []
    for statement in _statements(tree):
        if isinstance(statement, ast.ClassDef):
            bases = tuple(_last(base) for base in statement.bases)
            found.append(_Class(statement.name, bases, handles="handle" in _bound(statement)[0]))
        elif isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            value, made = statement.value, _last(statement.value)
            alias = isinstance(value, ast.Name) and made in {one.name for one in found}
            if alias or (isinstance(value, ast.Call) and made in MAKERS):
                written = made == FACTORY
                found += [_Class(one.id, (made,), False, written) for one in targets if isinstance(one, ast.Name)]
    return list({one.name: one for one in found}.values())


def _last(node: ast.expr) -> str:
    """The last part of a name that is used or called: `handler_factory` of `base_handler.handler_factory(init)`."""
    while isinstance(node, (ast.Call, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _served(classes: Sequence[_Class]) -> _Class:
    """The class that handler_factory made, or what was derived from it last; else the first of those that can handle."""
    made: list[_Class] = []
    for one in classes:
        if {FACTORY, *(each.name for each in made)} & set(one.bases):
            made.append(one)
    if not made:
        return classes[0]
    served = made[0]
    for one in made[1:]:
        if served.name in one.bases:
            served = one
    return served


def _may_handle(one: _Class, classes: Sequence[_Class]) -> bool:
    """Whether a class can have a `handle` method; a base from elsewhere may bring it."""
    known = {each.name: each for each in classes if each is not one}
    if one.handles:
        return True
    return any(_may_handle(known[base], [*known.values()]) if base in known else base not in NO_HANDLERS for base in one.bases)
