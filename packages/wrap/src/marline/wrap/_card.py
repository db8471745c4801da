"""The model card: what this is, what it needs, and what it reports to whom."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marline.core import Manifest, WrapConfig
from marline.telemetry import Settings
from marline.wrap._plan import render, without_place


def card(model: str, config: WrapConfig, settings: Settings, loaded: Manifest, facts: Mapping[str, Any]) -> str:
    """Markdown with the front matter that the hub reads."""
    source = loaded.folder / "checkpoint" / "README.md"
    return render(
        "README.md",
        model=model,
        settings=settings,
        loaded={
            "revision": None,
            **loaded.facts,
            "source": without_place(loaded.facts["source"]),
            "weights": {key: without_place(told) for key, told in loaded.facts["weights"].items()},
        },
        facts={"note": None, **facts},
        replaced=[one.path for one in config.components],
        license=_license(source),
        has_source_card=source.is_file(),
    )


def _license(source: Path) -> str | None:
    """The licence that the source's own card names in its front matter."""
    text = source.read_text(encoding="utf-8", errors="replace") if source.is_file() else ""
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    found = re.search(r"^license:\s*[\"']?([\w.\-]+)", front[1], re.MULTILINE) if front else None
    return found[1] if found else None
