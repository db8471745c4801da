"""Reads the words of `nox -s archive -- model_name=X model_file=FILE ...`: the parameters of `build`, each key=value."""

import inspect
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from marline.archive._build import build
from marline.core import RequestError

PARAMETERS = tuple(inspect.signature(build).parameters)
OTHERS = ("model", "inspect")  # the stage's first word, and the other command's


def parameters(words: Sequence[str]) -> dict[str, Any]:
    """What to call `build` with; RequestError names every word that is none, and the nearest that is."""
    told: dict[str, Any] = {}
    wrong = []
    for word in words:
        key, equals, value = word.partition("=")
        if key not in PARAMETERS:
            near = get_close_matches(key, (*PARAMETERS, *OTHERS), n=1)
            wrong.append(
                f"{key!r} is not known" + (f"; did you mean {near[0]}=?" if near else f"; known: {', '.join(PARAMETERS)}")
            )
        elif not equals or not value:
            wrong.append(f"{word!r} says nothing; write {key}=VALUE or leave it out")
        elif key in told:
            wrong.append(f"{key} is said twice")
        else:
            told[key] = [part.strip() for part in value.split(",") if part.strip()] if key == "extra_files" else value
    if not wrong and "model_name" not in told:
        wrong.append("no model_name is said; write model_name=NAME, or model=NAME for a model of this project")
    if wrong:
        raise RequestError("\n".join(wrong))
    return told
