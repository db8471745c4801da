"""Says why an export failed, in terms of the model's own source."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from marline.core import ParityError
from marline.export._diagnosis import innermost_branch, obstacles, places, said_by_compiler
from marline.export._remedies import Finding, Remedy
from marline.export._torchscript import Suspect, first_lines, operations, trace

SHOWN = 5
HERE = str(Path(__file__).parent)


def script_refusal(module: nn.Module, error: BaseException) -> str:
    """What the compiler refused: the obstacles in the source, those in the file and line it names first, then its words."""
    found, named = obstacles(module), said_by_compiler(error)
    if named is not None:
        found.sort(key=lambda one: (one.file, one.number) != named)  # stable: the rest stays in order
    told = [f"\n    {one}" for one in found[:SHOWN]]
    more = [f"\n    and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    where = "" if named is None or found else f" ({named[0].rpartition('/')[2]}:{named[1]})"
    said = first_lines(str(error).partition('File "')[0] or str(error)).rstrip(" :")
    return f"the compiler says{where}: {said}{''.join([*told, *more])}"


def trace_refusal(module: nn.Module, example: tuple[Any, ...], arguments: tuple[Any, ...], error: ParityError) -> str:
    """What a trace wrote down that the failing call has otherwise: a branch, or a size; found by tracing that call too."""
    told = str(error).removesuffix(". Nothing was published")
    try:
        left, right = (operations(trace(module, given)[0]) for given in (example, arguments))
    except Exception:  # anyone's code on an input it may refuse; the difference itself was said already
        return told
    kinds = [[name for name, _ in each if "::" in name] for each in (left, right)]
    if kinds[0] != kinds[1]:
        where = _branch([left, right]) or next(iter(places(module, Remedy.BRANCH)), None)
        shown = f"\n    {where}" if where else ""
        return f"{told}. The trace keeps one way through the code, and this call takes another{shown}"
    for (one, place), (other, _) in zip(left, right, strict=True):
        if one != other:
            where = _finding(place, f"{one} was written down; this call has {other}", Remedy.SIZE)
            shown = f"\n    {where}" if where else ""
            return f"{told}. The trace has a size or a value baked in: {one} where this call has {other}{shown}"
    sizes = places(module, Remedy.SIZE)
    return f"{told}\n    {sizes[0]}" if sizes else told


def suspects(found: Sequence[Suspect]) -> list[str]:
    """Where a model's code looked at values while it was traced."""
    return sorted({f"{file.rpartition('/')[2]}:{number}: {told}" for file, number, told in found})


def _branch(graphs: list[list[tuple[str, str]]]) -> Finding | None:
    """The choice around the first operator that only one of the two graphs has at its place."""
    left, right = ([(name, place) for name, place in each if "::" in name] for each in graphs)
    at = next((index for index, (one, other) in enumerate(zip(left, right, strict=False)) if one[0] != other[0]), None)
    at = min(len(left), len(right)) if at is None else at
    for graph in (left, right):
        for _, place in graph[at : at + 1]:
            for file, number in _lines(place):
                if (found := innermost_branch(file, number)) is not None:
                    return found
    return None


def _finding(place: str, what: str, remedy: Remedy) -> Finding | None:
    for file, number in _lines(place):
        try:
            with open(file, encoding="utf-8") as source:  # noqa: PTH123 - linecache would keep an older version
                return Finding(file, number, source.read().splitlines()[number - 1].strip(), what, remedy)
        except (OSError, IndexError):
            continue
    return None


def _lines(place: str) -> list[tuple[str, int]]:
    """The files and lines of a node, innermost first, without torch's own."""
    named = re.findall(r"^(\S.*?\.py)\((\d+)\)", place, re.MULTILINE)
    return [(file, int(number)) for file, number in named if "/torch/" not in file and not file.startswith(HERE)]
