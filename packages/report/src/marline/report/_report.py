"""The stage itself: gather, draw, render, seal."""

import time
from collections.abc import Sequence
from pathlib import Path

from marline.core import Manifest, ReportConfig, progress, seal, write_json
from marline.report._baseline import find
from marline.report._content import StageTime, content
from marline.report._gate import judged
from marline.report._map import map_picture
from marline.report._metrics import metrics
from marline.report._pictures import curve_picture, throughput_picture
from marline.report._render import html, markdown
from marline.report._words import marks


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
    wide, narrow, curve = throughput_picture(found, 7.6), throughput_picture(found, 4.2), curve_picture(found)
    pairs = map_picture(found)
    (out / "throughput_latency.svg").write_text(wide)
    if pairs:
        (out / "batch_and_delay.svg").write_text(pairs)
    progress(0.8, "writing")
    (out / "report.md").write_text(markdown(found))
    (out / "report.html").write_text(html(found, wide=wide, narrow=narrow, curve=curve, pairs=pairs))
    facts = {
        "chosen": found["chosen"],
        "gain": found["gain"],
        "marks": marks(found["weights"], found["accelerator"]),
        "replicas": found["replicas"],
        "gate": found["baseline"],
    }
    return seal(out, model=model, config=config, inputs=manifests, facts=facts, started=started)
