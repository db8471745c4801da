"""`model=A,B`: each model in a process of its own, then one index of their reports.

One after another where they measure, as only one measurement runs on a machine; side by side where they are only built. What
one model's code breaks is no other's.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from prefect import flow, task, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from marline.core import STAGES, Config, project_root

COLUMNS = ("verdict", "chosen", "gain", "replicas", "weights", "accelerator")
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Capacity reports</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; margin: 2rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .4rem 1rem .4rem 0; border-bottom: 1px solid #c3cad1; }
.failed { color: #a4262c; white-space: pre-wrap; }
</style>
<h1>Capacity reports</h1>
<table><tr><th>model</th>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% if row.place %}<td><a href="{{ row.place }}">{{ row.model }}</a></td>
{% for column in columns %}<td>{{ row.found[column] }}</td>{% endfor %}
{% else %}<td>{{ row.model }}</td>
<td class="failed" colspan="{{ columns | length }}">failed: {{ row.said }}</td>{% endif %}</tr>
{% endfor %}</table></html>
"""


@dataclass(frozen=True)
class Life:
    """What became of one model."""

    model: str
    code: int
    said: str
    seconds: float


def several(configs: Sequence[Config], words: Sequence[Sequence[str]]) -> int:
    """Exit code 0 when every model is done, 1 when one failed; the others go on."""
    until = configs[0].until
    apart = STAGES.index(until) < STAGES.index("deploy")
    runner: Any = ThreadPoolTaskRunner(max_workers=len(os.sched_getaffinity(0)) if apart else 1)
    models, told = [config.model for config in configs], [list(each) for each in words]
    lives = lifecycles.with_options(task_runner=runner)(models, told, apart)
    print()
    for one in lives:
        how = f"done in {one.seconds:.0f} s" if one.code == 0 else f"failed: {one.said.splitlines()[0][:200]}"
        print(f"  {one.model:<12} {how}")
    if until == "report":
        print(f"  {'reports':<12} {index(project_root() / configs[0].artifacts, lives)}", flush=True)
    return int(any(one.code for one in lives))


@flow(name="lifecycles", validate_parameters=False)
def lifecycles(models: list[str], words: list[list[str]], apart: bool) -> list[Life]:
    """Every model's life, mapped; Prefect's page shows each as a flow run of its own beside this one."""
    return [future.result() for future in life.map(models, words, unmapped(apart))]


@task(task_run_name="{model}")
def life(model: str, words: list[str], apart: bool) -> Life:
    """One model's life in a process of its own; what it prints is shown at once, or at its end where others print too."""
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-m", "pipelines", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if apart else None,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    sys.stdout.write(ran.stdout or "")
    sys.stderr.write(ran.stderr)
    said = ran.stderr.strip().removeprefix("pipeline: ") or f"it ended with code {ran.returncode} and said nothing"
    return Life(model, ran.returncode, said if ran.returncode else "", time.monotonic() - began)


def index(artifacts: Path, lives: Sequence[Life]) -> Path:
    """Write index.html with a line per model: what its newest report found and where it is, or why there is none."""
    from marline.report import summary  # noqa: PLC0415 - it takes a second to import, in which the first model can begin

    rows: list[dict[str, object]] = []
    for one in lives:
        if one.code:
            rows.append({"model": one.model, "said": one.said})
            continue
        folder = (artifacts / one.model / "latest" / "report").resolve()
        found = dict(summary(json.loads((folder / "report.json").read_text())))
        place = os.path.relpath(folder / "report.html", artifacts.resolve())
        rows.append({"model": one.model, "found": found, "place": place})
    page = artifacts / "index.html"
    shown = jinja2.Environment(autoescape=True)
    page.write_text(shown.from_string(PAGE).render(rows=rows, columns=COLUMNS))
    return page
