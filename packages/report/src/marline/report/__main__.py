"""`python -m marline.report model=NAME`: render the report again from the newest finished stages."""

from pathlib import Path

from marline.core import STAGES, Config, Manifest, main, newest, project_root
from marline.report import StageTime, enforce, report


def render_again(config: Config, out: Path) -> Manifest:
    artifacts = project_root() / config.artifacts
    manifests = [newest(artifacts, config.model, stage) for stage in STAGES[:-1]]
    stages = [StageTime(manifest.stage, manifest.seconds, cached=True, run=manifest.run) for manifest in manifests]
    manifest = report(config.model, config.report, manifests, stages, out.parent.name, out)
    enforce(manifest.facts["gate"])
    return manifest


if __name__ == "__main__":
    main(render_again, "report")
