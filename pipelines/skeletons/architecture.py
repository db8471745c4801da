"""Reads an architecture of transformers from its source, without importing it: what a new model inherits from it."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from marline.core import RequestError

PARTS = ("configuration", "modeling")
TASKS = {"ForSequenceClassification": "text-classification", "ForImageClassification": "image-classification"}
REMEDY = "start from bert, roberta, distilbert or vit, or leave base out"


@dataclass(frozen=True, slots=True)
class Layer:
    """A class of the architecture that the new model replaces, as its skeleton writes it."""

    parent: str  # BertModel
    attribute: str  # bert: where the class that holds it keeps it
    call: str  # LampModel(config): how that class makes it
    signature: str  # config: LampConfig, add_pooling_layer: bool = True
    passed: str  # config, add_pooling_layer=add_pooling_layer


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the skeleton of `modular_NAME.py` says of its base."""

    name: str  # bert
    prefix: str  # Bert
    suffix: str  # ForSequenceClassification
    model: Layer
    embeddings: Layer | None  # where they have a dropout to replace
    fields: frozenset[str]  # of the configuration

    @property
    def task(self) -> str:
        return TASKS[self.suffix]


def architecture(name: str, camel: str) -> Architecture:
    """The architecture `models/NAME` of the installed transformers, for a new model whose classes begin with `camel`.

    RequestError where there is none, or none whose classifier can be started from.
    """
    known = [folder.name for folder in models_folder().iterdir() if all(_file(folder.name, part).is_file() for part in PARTS)]
    if name not in known:
        near = [*get_close_matches(name, sorted(known), n=1), "bert"][0]
        raise RequestError(f"base={name} is no architecture of the installed transformers; did you mean {near}?")
    classes = _classes(source(name, "modeling"))
    heads = [(head, suffix) for suffix in TASKS for head in classes if head.endswith(suffix)]
    if not heads:
        raise RequestError(f"base={name} classifies neither texts nor images; {REMEDY}")
    head, suffix = heads[0]
    prefix = head.removesuffix(suffix)
    configs = _classes(source(name, "configuration"))
    model = _layer(classes, head, [f"{prefix}Model"], camel, "Model")
    if model is None or f"{prefix}Config" not in configs:
        raise RequestError(
            f"base={name}: {head} does not make a {prefix}Model of its own from a {prefix}Config, so that no subclass can "
            f"replace it; {REMEDY}"
        )
    embeddings = _layer(classes, model.parent, _with_dropout(classes), camel, "Embeddings")
    fields = frozenset(ast.unparse(node.target) for node in configs[f"{prefix}Config"].body if isinstance(node, ast.AnnAssign))
    return Architecture(name, prefix, suffix, model, embeddings, fields)


def models_folder() -> Path:
    """Where transformers keeps its architectures."""
    spec = find_spec("transformers")  # located, not imported: that takes seconds
    assert spec is not None, "transformers is installed with marline-load"
    assert spec.origin is not None, "transformers is a package"
    return Path(spec.origin).parent / "models"


def source(base: str, part: str) -> str:
    """One file of an architecture, fit for code of one's own.

    The decorators that write transformers' own documentation are left out. Imports inside functions, of packages that are
    not installed, stand in a try: transformers refuses to open code of one's own whose other imports are not all there.
    """
    lines = _file(base, part).read_text(encoding="utf-8").splitlines()
    for node in ast.walk(ast.parse("\n".join(lines))):
        for decorator in getattr(node, "decorator_list", []):
            if ast.unparse(decorator).startswith("auto_docstring"):
                for number in range(decorator.lineno - 1, decorator.end_lineno):
                    lines[number] = ""
        if isinstance(node, ast.Import) and node.col_offset and find_spec(node.names[0].name.partition(".")[0]) is None:
            indent, line = " " * node.col_offset, lines[node.lineno - 1]
            lines[node.lineno - 1] = f"{indent}try:\n    {line}\n{indent}except ImportError:\n{indent}    raise"
    return "\n".join(lines)


def _file(base: str, part: str) -> Path:
    return models_folder() / base / f"{part}_{base}.py"


def _classes(text: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}


def _init(node: ast.ClassDef) -> ast.FunctionDef | None:
    return next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)


def _made(init: ast.FunctionDef | None) -> Iterator[tuple[str, ast.Call]]:
    """What `__init__` calls for an attribute of its own: `self.bert = BertModel(config)`."""
    for node in init.body if init else []:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Attribute):
            yield node.targets[0].attr, node.value


def _with_dropout(classes: Mapping[str, ast.ClassDef]) -> list[str]:
    """The classes of embeddings that have a dropout."""
    return [
        name
        for name, node in classes.items()
        if name.endswith("Embeddings") and "dropout" in [attribute for attribute, _ in _made(_init(node))]
    ]


def _layer(classes: Mapping[str, ast.ClassDef], holder: str, parents: Sequence[str], camel: str, word: str) -> Layer | None:
    """The layer that `holder` makes of one of the parents; None where it makes none, or the parent has no `__init__`."""
    for attribute, call in _made(_init(classes[holder])):
        parent = ast.unparse(call.func)
        init = _init(classes[parent]) if parent in parents and parent in classes else None
        if init is not None:
            made = ast.unparse(ast.Call(ast.Name(f"{camel}{word}"), call.args, call.keywords))
            names = [one.arg for one in init.args.args[1:]]
            passed = ", ".join(["config", *(f"{name}={name}" for name in names[1:])])
            return Layer(parent, attribute, made, _signature(init, camel), passed)
    return None


def _signature(init: ast.FunctionDef, camel: str) -> str:
    """The parameters after self; the configuration is the new model's, and a type that is not told is the default's."""
    words = [f"config: {camel}Config"]
    defaults = dict(zip(reversed(init.args.args), reversed(init.args.defaults), strict=False))
    for one in init.args.args[2:]:
        default = defaults.get(one)
        known = one.annotation or (
            ast.Name(type(default.value).__name__) if isinstance(default, ast.Constant) else ast.Name("object")
        )
        words.append(f"{one.arg}: {ast.unparse(known)}" + (f" = {ast.unparse(default)}" if default else ""))
    return ", ".join(words)
