"""`python -m pipelines.bench name=NAME`: runs the benchmark NAME and keeps every figure with its bar.

A benchmark is a file `packages/*/bench/NAME.py` or `tests/bench/NAME.py` with a function `figures()`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from marline.core import MarlineError, RequestError, import_file, project_root, write_json

COLUMNS = ("name", "value", "unit", "bar", "holds", "samples", "note")


def main(words: Sequence[str]) -> int:
    """Exit code 0 when every bar holds, 1 when one does not, 2 for a wrong request."""
    try:
        root = project_root()
        name, file = benchmark(root, words)
    except MarlineError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    figures: list[dict[str, Any]] = import_file(file, f"bench_{name}").figures()
    out = root / "artifacts" / "bench" / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"name": name, "figures": figures})
    table = Table(*COLUMNS, title=name)
    for figure in figures:
        table.add_row(*("" if figure[column] is None else str(figure[column]) for column in COLUMNS))
    Console(width=160).print(table)
    print(json.dumps({"written": str(out.relative_to(root))}))
    return 0 if all(figure["holds"] is not False for figure in figures) else 1


def benchmark(root: Path, words: Sequence[str]) -> tuple[str, Path]:
    """The benchmark asked for; RequestError with the known names where there is no such one."""
    files = sorted([*root.glob("packages/*/bench/*.py"), *root.glob("tests/bench/*.py")])
    known = {file.stem: file for file in files}
    name = words[0].removeprefix("name=") if len(words) == 1 and words[0].startswith("name=") else None
    if name not in known:
        raise RequestError(f"say which benchmark: name=NAME with one of {', '.join(sorted(known))}; got {' '.join(words)!r}")
    return name, known[name]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
