"""The source of one function: what TorchScript cannot express in it, and what makes an export answer otherwise."""

import ast
import inspect
import re
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from marline.export._remedies import Finding, Remedy

KNOWN = {"torch", "math", "typing", "builtins", "collections", "enum", "__future__"}  # what the compiler knows in part
STATEMENTS: dict[type[ast.AST], str] = {
    ast.Try: "try",
    ast.Yield: "yield",
    ast.YieldFrom: "yield",
    ast.Set: "a set",
    ast.SetComp: "a set",
    ast.NamedExpr: "the operator :=",
    ast.Match: "match",
    ast.Global: "global",
    ast.Nonlocal: "nonlocal",
    ast.AsyncWith: "async",
    ast.Await: "await",
}
DRAWING = re.compile("rand|randn|randint|randperm|rand_like|randn_like|bernoulli|multinomial|normal|random|uniform")
DEVICE = re.compile(r"cpu|(cuda|mps|xpu)(:\d+)?")

Judged = Iterator[tuple[str, Remedy]]


@dataclass(frozen=True, slots=True)
class Source:
    """One function's syntax tree and lines."""

    function: Callable[..., Any]
    tree: ast.FunctionDef
    lines: Sequence[str]

    def findings(self, owner: nn.Module) -> Iterator[Finding]:
        """Everything noticed in it; `owner` is the module whose method it is, or calls it."""
        yield from self._signature()
        for node in ast.walk(self.tree):
            for judge in (self._statement, self._call, self._name, self._choice, self._written, self._constant):
                for what, remedy in judge(node):
                    yield self._finding(node, what, remedy)
            for what, remedy in _attribute(node, owner):
                yield self._finding(node, what, remedy)
        if _returns_a_value(self.tree) and not _always_ends(self.tree.body):
            yield self._finding(self.tree, f"{self.tree.name} may end without a return", Remedy.RETURN)

    def called(self, owner: nn.Module) -> list[Any]:
        """Methods of the owner and functions of the same file that this function calls."""
        calls = [node.func for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        methods = [
            getattr(type(owner), one.attr, None) for one in calls if isinstance(one, ast.Attribute) and _root(one) == "self"
        ]
        named = [self._global(one.id) for one in calls if isinstance(one, ast.Name)]
        return [*methods, *(one for one in named if getattr(one, "__module__", None) == self.function.__module__)]

    def _signature(self) -> Iterator[Finding]:
        told = self.tree.args
        for extra, stars in ((told.vararg, "*"), (told.kwarg, "**")):
            if extra is not None:
                yield self._finding(extra, f"{stars}{extra.arg} in {self.tree.name}", Remedy.ARGUMENTS)
        named = [*told.posonlyargs, *told.args]
        defaults = [*told.defaults, *told.kw_defaults]
        pairs = zip([*named[len(named) - len(told.defaults) :], *told.kwonlyargs], defaults, strict=True)
        for argument, default in pairs:
            if argument.annotation is None and default is not None:
                yield self._finding(argument, f"no type hint for {argument.arg}={ast.unparse(default)}", Remedy.HINT)

    def _statement(self, node: ast.AST) -> Judged:
        if isinstance(node, ast.FunctionDef | ast.Lambda | ast.ClassDef) and node is not self.tree:
            yield f"{getattr(node, 'name', 'a lambda')} is defined inside {self.tree.name}", Remedy.NESTED
        if type(node) in STATEMENTS:
            yield f"{STATEMENTS[type(node)]} in {self.tree.name}", Remedy.STATEMENT
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.List | ast.Dict)
            and ast.unparse(node.value) in {"[]", "{}"}
        ):
            yield f"no type hint for {ast.unparse(node.targets[0])}", Remedy.UNTYPED
        if isinstance(node, ast.keyword) and node.arg is None:
            yield f"a ** in a call in {self.tree.name}", Remedy.ARGUMENTS

    def _call(self, node: ast.AST) -> Judged:
        if not isinstance(node, ast.Call):
            return
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        told = {word.arg: ast.unparse(word.value) for word in node.keywords}
        root = _root(node.func)
        if name.startswith(("dropout", "alpha_dropout", "feature_dropout")) and told.get("training", "True") == "True":
            if root != "self":  # a layer of the module's own is turned off
                yield f"{name} that eval() does not turn off", Remedy.RANDOM
        elif DRAWING.fullmatch(name.strip("_")):
            yield f"{name} draws random numbers", Remedy.RANDOM
        elif name in {"batch_norm", "instance_norm"} and "True" in {told.get("training"), told.get("use_input_stats")}:
            yield f"{name} in training mode", Remedy.TRAINING
        elif name in {"view", "reshape", "expand"} and any(map(_is_size, node.args[:2])):
            yield f".{name}() with a size as a number", Remedy.SIZE
        elif isinstance(node.func, ast.Attribute):
            yield from self._method(name, root, ast.unparse(node.func))

    def _method(self, name: str, root: str, told: str) -> Judged:
        if name in {"cpu", "cuda"}:
            yield f".{name}() names a device", Remedy.DEVICE
        if name.endswith("_") and not name.endswith("__") and root in self._arguments():
            yield f".{name}() writes into an argument", Remedy.IN_PLACE
        if name in {"append", "add", "update", "extend"} and self._is_shared(root):
            yield f"{told} keeps something between calls", Remedy.STATE

    def _name(self, node: ast.AST) -> Judged:
        value = self._global(node.id) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else None
        if not (isinstance(value, types.ModuleType) or callable(value)):
            return
        home = value.__name__ if isinstance(value, types.ModuleType) else str(getattr(value, "__module__", ""))
        library = home.partition(".")[0]
        if home != self.function.__module__ and library not in KNOWN and not library.startswith("_"):
            assert isinstance(node, ast.Name)
            yield f"{node.id} is of the library {library}", Remedy.LIBRARY

    def _choice(self, node: ast.AST) -> Judged:
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            asks = any(isinstance(one, ast.Call | ast.Compare) for one in ast.walk(node.test))
            if asks:
                yield f"a choice by {ast.unparse(node.test)}", Remedy.BRANCH

    def _written(self, node: ast.AST) -> Judged:
        if not isinstance(node, ast.Assign | ast.AugAssign):
            return
        told_global = {name for one in ast.walk(self.tree) if isinstance(one, ast.Global) for name in one.names}
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            root = _root(target)
            if root == "self" or root in told_global or self._is_shared(root):
                yield f"{ast.unparse(target)} is kept between calls", Remedy.STATE
            elif root in self._arguments() and (isinstance(node, ast.AugAssign) or isinstance(target, ast.Subscript)):
                yield f"{ast.unparse(target)} is an argument", Remedy.IN_PLACE

    def _constant(self, node: ast.AST) -> Judged:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and DEVICE.fullmatch(node.value):
            yield f"the device {node.value!r} by name", Remedy.DEVICE

    def _arguments(self) -> set[str]:
        told = self.tree.args
        return {one.arg for one in [*told.posonlyargs, *told.args, *told.kwonlyargs]} - {"self"}

    def _global(self, name: str) -> Any:
        return self.function.__globals__.get(name)

    def _is_shared(self, name: str) -> bool:
        return isinstance(self._global(name), list | dict | set)

    def _finding(self, node: Any, what: str, remedy: Remedy) -> Finding:
        number = node.lineno + self.function.__code__.co_firstlineno - 1
        line = self.lines[node.lineno - 1].strip() if 0 < node.lineno <= len(self.lines) else ""
        return Finding(self.function.__code__.co_filename, number, line, what, remedy)


def read(function: types.FunctionType) -> Source | None:
    """The source of a function; None where there is none to be read."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(text).body[0]
    except (OSError, TypeError, SyntaxError):  # written in a shell, or made by a program
        return None
    return Source(function, tree, text.splitlines()) if isinstance(tree, ast.FunctionDef) else None


def _attribute(node: ast.AST, owner: nn.Module) -> Judged:
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and isinstance(node.value, ast.Name):
        value = owner.__dict__.get(node.attr)
        if node.value.id == "self" and not _expressible(value):
            yield f"self.{node.attr} is a {type(value).__qualname__}", Remedy.ATTRIBUTE


def _is_size(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value > 1


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _returns_a_value(tree: ast.FunctionDef) -> bool:
    own = [node for node in ast.walk(tree) if isinstance(node, ast.Return)]
    return any(node.value is not None for node in own)


def _always_ends(body: Sequence[ast.stmt]) -> bool:
    """Whether no path falls off the end of these statements."""
    last = body[-1] if body else None
    if isinstance(last, ast.Return | ast.Raise):
        return True
    if isinstance(last, ast.If):
        return bool(last.orelse) and _always_ends(last.body) and _always_ends(last.orelse)
    if isinstance(last, ast.With):
        return _always_ends(last.body)
    if isinstance(last, ast.Try):
        return all(map(_always_ends, [last.body, *(handler.body for handler in last.handlers)]))
    return isinstance(last, ast.While) and isinstance(last.test, ast.Constant) and bool(last.test.value)


def _expressible(value: Any) -> bool:
    """Whether TorchScript can keep an attribute; functions, modules and types are judged where they are called."""
    if value is None or isinstance(value, bool | int | float | str | torch.Tensor | torch.device | torch.dtype | nn.Module):
        return True
    if isinstance(value, list | tuple):
        return all(_expressible(one) for one in value)
    if isinstance(value, dict):
        return all(_expressible(one) for one in (*value, *value.values()))
    return callable(value) or isinstance(value, types.ModuleType)
