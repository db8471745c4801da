"""The Python files of a repository, from templates and copies."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from marline.telemetry import FILE
from marline.wrap._names import Names

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,  # noqa: S701 - Python and Markdown, not HTML; what comes from outside is inserted with tojson
)


def code(names: Names, source: str, checkpoint: Path) -> dict[str, str]:
    """File names and texts. `source` is `torchvision:NAME` or `python:FILE.py:FUNCTION`."""
    kind, _, rest = source.partition(":")
    function = rest.rpartition(":")[2] if kind == "python" else None
    values = {"names": names, "architecture": rest, "function": function}
    files = {
        f"modeling_{names.stem}.py": render("modeling.py", values),
        f"tracked_{names.stem}.py": render("tracked.py", values),
        "marline_tracker.py": FILE.read_text(encoding="utf-8"),
    }
    if function:
        files[f"source_{names.stem}.py"] = (checkpoint / "source.py").read_text(encoding="utf-8")
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return {f"configuration_{names.stem}.py": render("configuration.py", {"names": names, "digest": digest}), **files}


def render(template: str, values: Mapping[str, Any]) -> str:
    """Fill in one of `templates/`."""
    return TEMPLATES.get_template(f"{template}.jinja").render(values)
