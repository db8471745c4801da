"""`python -m marline.plan model=NAME plan.rps=100000`: plan with the newest finished tuning."""

from pathlib import Path

from marline.core import Config, Manifest, main, newest, project_root
from marline.plan import plan


def plan_newest(config: Config, out: Path) -> Manifest:
    artifacts = project_root() / config.artifacts
    tuned, loaded = (newest(artifacts, config.model, stage) for stage in ("tune", "load"))
    return plan(config, tuned, loaded, out)


if __name__ == "__main__":
    main(plan_newest, "plan")
