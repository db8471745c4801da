"""The command itself: read what was tuned, plan, draw, render, seal."""

import json
import time
from pathlib import Path

from marline.core import Config, Manifest, progress, seal, write_json
from marline.plan._content import content
from marline.plan._page import html, lines, markdown
from marline.plan._picture import day_picture
from marline.plan._source import twin_of

OTHER_LOAD = "load (run {}) is not the one that was tuned; whether weights are random is said of that one"


def plan(config: Config, tuned: Manifest, loaded: Manifest, out: Path) -> Manifest:
    """Write plan.json, plan.md, plan.html and plan.svg from the manifests of tune and load.

    RequestError where the day is not told, StageError where nothing that was tuned can carry it.
    """
    started = time.monotonic()
    result = json.loads(tuned.path("result.json").read_text())
    twin, warnings = twin_of(config.model, result, config.plan)
    if tuned.inputs.get("load", loaded.digest) != loaded.digest:
        warnings.append(OTHER_LOAD.format(loaded.run))
    found = content(config, twin, result, loaded, tuned.run) | {"warnings": warnings}
    write_json(out / "plan.json", found)
    progress(0.9, "drawing")
    wide, narrow = day_picture(found, 7.6), day_picture(found, 4.2)
    (out / "plan.svg").write_text(wide)
    (out / "plan.md").write_text(markdown(found))
    (out / "plan.html").write_text(html(found, wide=wide, narrow=narrow))
    print("\n".join(lines(found)))
    facts = {key: found[key] for key in ("marks", "peak", "totals", "proof")}
    return seal(out, model=config.model, config=config.plan, inputs=[loaded, tuned], facts=facts, started=started)
