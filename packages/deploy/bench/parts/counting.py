"""A schemathesis hook: counts the answers to what it sends, and keeps those that show a request was let in.

Runs inside schemathesis, in an environment of its own; writes the file that the variable COUNTED names at the end.
"""

import atexit
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis

STATUSES: Counter[int] = Counter()
LET_IN: Counter[str] = Counter()  # requests answered with less than 400, by operation


@schemathesis.hook  # type: ignore[untyped-decorator]  # it has no types where it is not installed
def after_call(context: Any, case: Any, response: Any) -> None:  # noqa: ARG001 - the hook's signature
    """Count one answer."""
    STATUSES[response.status_code] += 1
    if response.status_code < 400:
        LET_IN[f"{case.method.upper()} {case.operation.path}"] += 1


@atexit.register
def write() -> None:
    """Leave the counts behind."""
    Path(os.environ["COUNTED"]).write_text(json.dumps({"statuses": STATUSES, "let_in": LET_IN}))
