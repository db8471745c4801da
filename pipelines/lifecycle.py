"""The life of a model, top to bottom. Read this first; `tasks.py` says how a stage is cached and run."""

from collections.abc import Iterator
from pathlib import Path

from prefect import flow

from marline.core import Manifest, accelerator_of, complete, new_run, project_root, read_config
from marline.deploy import refuse_random
from pipelines import tasks
from pipelines.console import Console
from pipelines.gate import Gate
from pipelines.notify import telling
from pipelines.page import page
from pipelines.store import opened


def life(run: tasks.Run) -> Iterator[Manifest]:
    """Take one model from its source to a measured capacity, a stage at a time; each yields what it left behind."""
    yield (loaded := run.stage(tasks.load))
    refuse_random(run.config, loaded)
    yield (wrapped := run.stage(tasks.wrap, loaded))
    yield (exported := run.stage(tasks.export, loaded, wrapped))
    yield (archived := run.stage(tasks.archive, wrapped, exported))
    yield (deployed := run.stage(tasks.deploy, exported, archived))
    yield (tuned := run.stage(tasks.tune, loaded, exported, archived, deployed))
    yield run.stage(tasks.report, loaded, wrapped, exported, archived, deployed, tuned)


@flow(name="lifecycle", flow_run_name="{model}", validate_parameters=False)
def lifecycle(model: str, settings: list[str]) -> Path:
    """Run the life of `model` up to the stage `until`; `settings` are key=value words. Returns the run's folder."""
    root = project_root()
    config = read_config([f"model={model}", *settings]).config
    accelerator, store = accelerator_of(config, root), opened(config.artifacts_url)
    gate = Gate.of(config, accelerator)
    folder = new_run(root / config.artifacts, config.model)
    with telling(config, folder), Console(config.model, config.until, folder) as console:
        run, shown = tasks.Run(gate.config, accelerator, folder, console, gate.baseline, store), page(config)
        for manifest in life(run):
            shown.done(manifest)
            if manifest.stage == config.until:
                break
        if config.until == "report":
            complete(folder, config.keep_runs)
            console.summarise(manifest)
        run.share()
        if config.until == "report":
            gate.settle(manifest, folder)
            run.deliver()
    return folder
