"""The stage itself: gather, draw, render, seal."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marline.core import Manifest, ReportConfig, progress, seal, write_json
from marline.report._baseline import find
from marline.report._content import StageTime, content
from marline.report._gate import judged
from marline.report._goodput import goodput_picture, split_picture
from marline.report._map import map_picture
from marline.report._metrics import metrics
from marline.report._pictures import Drawn, curve_picture, throughput_picture
from marline.report._render import html, markdown
from marline.report._words import marks

WIDE, NARROW = 7.6, 4.2  # inches: on a page, on a phone


def report(
    model: str, config: ReportConfig, manifests: Sequence[Manifest], stages: Sequence[StageTime], run: str, out: Path
) -> Manifest:
    """Write report.json, report.md, report.html and the pictures from the manifests of load ... tune."""
    started = time.monotonic()
    found = content(model, config, manifests, stages, run)
    tune = next(one.folder for one in manifests if one.stage == "tune")
    found["metrics"] = metrics(found, tune, found["measured"]["confidence"], found["deployed"]["ready_s"])
    then = find(config.baseline, out.parent.parent) if config.fail_if is not None else None
    found["baseline"] = judged(config, found | {"tune_folder": tune}, then)
    write_json(out / "report.json", found)
    progress(0.2, "drawing")
    pictures = _pictures(found)
    for name, picture in pictures.items():
        (out / f"{name}.svg").write_text(picture.svg)
        (out / f"{name}.png").write_bytes(picture.png())
    progress(0.8, "writing")
    (out / "report.md").write_text(markdown(found))
    narrow = {"throughput_latency": throughput_picture(found, NARROW), "goodput": goodput_picture(found, NARROW)}
    (out / "report.html").write_text(html(found, pictures, narrow))
    facts = {
        "chosen": found["chosen"],
        "gain": found["gain"],
        "marks": marks(found["weights"], found["accelerator"]),
        "replicas": found["replicas"],
        "gate": found["baseline"],
    }
    return seal(out, model=model, config=config, inputs=manifests, facts=facts, started=started)


def _pictures(found: dict[str, Any]) -> dict[str, Drawn]:
    """Each picture by the name of its files, those without anything to show left out."""
    drawn = {
        "throughput_latency": throughput_picture(found, WIDE),
        "goodput": goodput_picture(found, WIDE),
        "latency_split": split_picture(found),
        "batch_and_delay": map_picture(found),
        "service_curve": curve_picture(found),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}
