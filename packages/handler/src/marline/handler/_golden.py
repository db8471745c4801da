"""Golden pairs: request bytes and the answer the eager model gives to them, kept from export to every deployment."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Pair:
    """One request and the parsed JSON answer to it."""

    name: str
    request: bytes
    answer: Any


def write_golden(file: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs as JSON, requests in base64."""
    rows = [{"name": pair.name, "request": base64.b64encode(pair.request).decode(), "answer": pair.answer} for pair in pairs]
    file.write_text(json.dumps({"pairs": rows}, indent=1, allow_nan=False))


def read_golden(file: Path) -> list[Pair]:
    """Read what `write_golden` wrote."""
    rows = json.loads(file.read_text())["pairs"]
    return [Pair(row["name"], base64.b64decode(row["request"]), row["answer"]) for row in rows]


def difference(expected: Any, got: Any, *, atol: float, rtol: float, where: str = "answer") -> str | None:
    """The first place where two JSON answers differ, in words; None where they are equal.

    Numbers with a fraction are equal within atol + rtol x |expected| (numpy.isclose); everything else must be the same.
    """
    if isinstance(expected, float) and isinstance(got, float | int) and not isinstance(got, bool):
        close = math.isclose(expected, got, rel_tol=0, abs_tol=atol + rtol * abs(expected))
        return None if close else f"{where}: expected {expected!r}, got {got!r} (atol {atol}, rtol {rtol})"
    if isinstance(expected, Mapping) and isinstance(got, Mapping) and expected.keys() == got.keys():
        inside = ((expected[key], got[key], f"{where}.{key}") for key in expected)
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        inside = ((left, right, f"{where}[{index}]") for index, (left, right) in enumerate(zip(expected, got, strict=True)))
    else:
        same = expected == got and isinstance(expected, bool) == isinstance(got, bool)  # Python says that True == 1
        return None if same else f"{where}: expected {expected!r}, got {got!r}"
    found = (difference(left, right, atol=atol, rtol=rtol, where=place) for left, right, place in inside)
    return next((place for place in found if place is not None), None)
