"""Reads a model's own source for what TorchScript cannot express, and for what explains that an export answers otherwise.

Only code that a forward pass reaches is read: `forward`, the methods it calls on self, and functions of the same file.
The obstacles are those that users meet most: missing type hints, other libraries, functions inside functions, types and
statements that the compiler does not know, and *args.
"""

import ast
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from marline.export._remedies import Finding, Remedy
from marline.export._source import read

SCRIPT = (
    Remedy.ARGUMENTS,
    Remedy.NESTED,
    Remedy.LIBRARY,
    Remedy.STATEMENT,
    Remedy.ATTRIBUTE,
    Remedy.HINT,
    Remedy.RETURN,
    Remedy.UNTYPED,
)
CHOICES = (ast.If, ast.IfExp, ast.Assert)
LOOPS = (ast.While, ast.For, ast.ListComp, ast.GeneratorExp)


def obstacles(module: nn.Module) -> list[Finding]:
    """What the compiler will refuse in the source of a module and its parts, the surest first."""
    found = [one for one in _findings(module) if one.remedy in SCRIPT]
    return sorted(found, key=lambda one: SCRIPT.index(one.remedy))


def places(module: nn.Module, remedy: Remedy) -> list[Finding]:
    """Where the source does what `remedy` is for."""
    return [one for one in _findings(module) if one.remedy is remedy]


def said_by_compiler(error: BaseException) -> tuple[str, int] | None:
    """The file and line that the compiler complains of: the last it names outside torch."""
    named = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    own = [(file, int(number)) for file, number in named if not is_torchs(file)]
    return own[-1] if own else None


def innermost_branch(file: str, number: int) -> Finding | None:
    """The `if`, loop or choice around a line of a file, innermost first; None where there is none."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
        tree = ast.parse("\n".join(lines))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (*CHOICES, *LOOPS)) and node.lineno <= number <= (node.end_lineno or 0)
    ]
    if not around:
        return None
    node = max(around, key=lambda one: one.lineno)
    what = "a choice by the values of an input" if isinstance(node, CHOICES) else "a loop whose length was written down"
    return Finding(file, node.lineno, lines[node.lineno - 1].strip(), what, Remedy.BRANCH)


def _findings(module: nn.Module) -> Iterator[Finding]:
    seen: set[object] = set()
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule) or type(part).__module__.partition(".")[0] == "torch":
            continue
        pending: list[Any] = [type(part).forward]
        while pending:
            function = inspect.unwrap(pending.pop())
            if function in seen or not isinstance(function, types.FunctionType) or is_torchs(function.__code__.co_filename):
                continue
            seen.add(function)
            source = read(function)
            if source is not None:
                yield from source.findings(part)
                pending += source.called(part)


def is_torchs(file: str) -> bool:
    """Whether a file is part of torch itself."""
    return Path(file).is_relative_to(Path(torch.__file__).parent)
