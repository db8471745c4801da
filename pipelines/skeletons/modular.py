"""Writes out what a modular file stands for: flat files that inherit from no other architecture.

`modular_NAME.py` holds subclasses of one of transformers' architectures. `flatten` takes that architecture's source, keeps
what the subclasses reach, puts their changes in its place and renames the rest: the rules of transformers' own converter,
which is no part of the wheel and needs libcst and a clone. What they do not cover is refused.
"""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import dropwhile, takewhile
from pathlib import Path

from marline.core import RequestError
from pipelines.skeletons.architecture import PARTS, source
from pipelines.skeletons.inlined import Piece, merged, pieces

PARENT = re.compile(r"transformers\.models\.(\w+)\.(configuration|modeling)_\1")
RELATIVE = re.compile(r"^(\s*from )(\.+)([\w.]*)(?= import )", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Modular:
    """A modular file, and what its classes inherit from."""

    file: Path
    body: Sequence[Piece]
    base: str  # bert
    parents: Mapping[str, tuple[str, str]]  # LampModel: (BertModel, modeling)

    @property
    def name(self) -> str:
        return self.file.stem.removeprefix("modular_")


def flatten(file: Path) -> dict[str, str]:
    """The names and texts of the configuration and the modeling file that `modular_NAME.py` stands for.

    RequestError where the file inherits in a way that cannot be written out.
    """
    modular = _read(file)
    texts = {part: source(modular.base, part) for part in PARTS}
    names = _new_names(modular, texts.values())
    return {f"{part}_{modular.name}.py": _flat(modular, part, text, names) for part, text in texts.items()}


def _read(file: Path) -> Modular:
    text = file.read_text(encoding="utf-8")
    try:
        body = list(pieces(text, ast.parse(text).body))
    except SyntaxError as error:
        raise RequestError(f"{file}, line {error.lineno}: {error.msg}") from None
    imports = [(node, PARENT.fullmatch(node.module or "")) for node, _ in body if isinstance(node, ast.ImportFrom)]
    origins = {alias.name: found for node, found in imports if found for alias in node.names}
    bases = sorted({found[1] for found in origins.values()})
    parents: dict[str, tuple[str, str]] = {}
    for node in (node for node, _ in body if isinstance(node, ast.ClassDef)):
        told = [ast.unparse(parent) for parent in node.bases]
        if len(told) > 1 and any(parent in origins for parent in told):
            raise RequestError(f"{file}: {node.name} has {len(told)} parents, which cannot be written out flat; leave it one")
        if told and told[0] in origins:
            parents[node.name] = told[0], origins[told[0]][2]
    if len(bases) != 1 or [part for _, part in parents.values()].count("configuration") != 1:
        raise RequestError(
            f"{file} inherits from {', '.join(bases) or 'no architecture'}; it must from one, its configuration included: "
            "from transformers.models.BASE.configuration_BASE import BASEConfig, then one class NAMEConfig(BASEConfig)"
        )
    return Modular(file, body, bases[0], parents)


def _new_names(modular: Modular, texts: Iterable[str]) -> dict[str, str]:
    """What each class of the architecture is called in the flat files."""
    old, new = next(
        (parent.removesuffix("Config"), child.removesuffix("Config"))
        for child, (parent, part) in modular.parents.items()
        if part == "configuration"
    )
    classes = [node.name for text in texts for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    strangers = sorted({parent for parent, _ in modular.parents.values()} - set(classes))
    if strangers:
        raise RequestError(
            f"{modular.file}: {', '.join(strangers)} is no class that {modular.base} itself defines; inherit from one"
        )
    renamed = {name: new + name.removeprefix(old) for name in classes if name.startswith(old)}
    return {**renamed, **{parent: child for child, (parent, _) in modular.parents.items()}}


def _flat(modular: Modular, part: str, text: str, names: Mapping[str, str]) -> str:
    """One flat file: licence, imports, the classes that are reached, in the order of the architecture's own file."""
    words = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")
    text = words.sub(lambda found: names[found[1]], _absolute(text, modular))
    base = list(pieces(text, ast.parse(text).body))
    own = [(node, words.sub(lambda found: names[found[1]], piece)) for node, piece in modular.body]
    children = {name for name, (_, of) in modular.parents.items() if of == part}
    found = {}
    if part == "modeling":  # what has no parent stands first: the rest may build on it
        found = {name: piece for node, piece in own if (name := _name(node)) and name not in modular.parents}
    found |= {name: piece for node, piece in base if (name := _name(node))}
    for node, piece in own:
        if isinstance(node, ast.ClassDef) and node.name in children:
            found[node.name] = merged(str(modular.file), found[node.name], piece)
    needed = _reached(found, children)
    used = {word for name in needed for word in _used(found[name])}
    _refuse_conditions(modular, base, used - found.keys())
    imports = _imports(modular, [node for node, _ in base], used)
    body = "\n\n\n".join(piece.strip() for name, piece in found.items() if name in needed)
    return f"{_head(modular, part, text)}\n\n{imports}\n\n\n{body}\n\n\n__all__ = {sorted(children)}\n"


def _absolute(text: str, modular: Modular) -> str:
    """Relative imports reach into transformers, but for the configuration, which has a flat file of its own."""

    def replaced(found: re.Match[str]) -> str:
        package = {1: f"transformers.models.{modular.base}.", 2: "transformers.models.", 3: "transformers."}[len(found[2])]
        own = found[2] == "." and found[3] == f"configuration_{modular.base}"
        return found[1] + (f".configuration_{modular.name}" if own else f"{package}{found[3]}".rstrip("."))

    return RELATIVE.sub(replaced, text)


def _name(node: ast.stmt) -> str | None:
    """What a definition is called: a class, a function, or the one name that is assigned."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return node.name
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return None


def _used(piece: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(piece)) if isinstance(node, ast.Name)}


def _reached(found: Mapping[str, str], start: Iterable[str]) -> set[str]:
    """The definitions that the given ones need, themselves included."""
    reached: set[str] = set()
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        if name in found and name not in reached:
            reached.add(name)
            waiting += _used(found[name])
    return reached


def _imports(modular: Modular, base: Sequence[ast.stmt], used: set[str]) -> str:
    """The imports of both files that are used; a name that both import is imported as the architecture does."""
    bound: set[str] = set()
    lines: dict[str, list[str]] = {}
    for node in (*base, *(node for node, _ in modular.body)):
        if isinstance(node, ast.ImportFrom) and not PARENT.fullmatch(node.module or ""):
            start = f"from {'.' * node.level}{node.module or ''} import"
        elif isinstance(node, ast.Import):
            start = "import"
        else:
            continue
        for alias in node.names:
            name = (alias.asname or alias.name).partition(".")[0]
            if name in used - bound:
                bound.add(name)
                lines.setdefault(start, []).append(ast.unparse(alias))
    order = sorted(lines, key=lambda start: (start.startswith("from ."), start != "import", start))
    return "\n".join(f"{start} {', '.join(sorted(lines[start]))}" for start in order)


def _refuse_conditions(modular: Modular, base: Sequence[Piece], unknown: set[str]) -> None:
    """What is defined under a condition is not followed."""
    for node, _ in base:
        if isinstance(node, ast.If | ast.Try):
            bound = {alias.asname or alias.name for one in ast.walk(node) for alias in getattr(one, "names", [])}
            bound |= {_name(one) or "" for one in ast.walk(node) if isinstance(one, ast.stmt)}
            if bound & unknown:
                raise RequestError(
                    f"{modular.file}: {modular.base} defines {', '.join(sorted(bound & unknown))} under a condition, which "
                    "cannot be written out flat; inherit from another architecture"
                )


def _head(modular: Modular, part: str, text: str) -> str:
    """Switches every rule off, and first the one against that: the style is transformers' own. Then licence and origin."""
    comments = takewhile(lambda line: line.startswith("#"), text.splitlines())
    licence = "\n".join(dropwhile(lambda line: "Copyright" not in line, comments))
    file = f"models/{modular.base}/{part}_{modular.base}.py"
    return f'''# ruff: noqa: PGH004
# ruff: noqa
{licence}
"""Changed from {file} of transformers {version("transformers")}, by modular_{modular.name}.py.

Edit that file, not this one, then: nox -s new-model -- flatten={modular.name}
"""'''
