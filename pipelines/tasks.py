"""Each stage as a Prefect task: named after stage and model, cached by inputs, configuration and code.

A stage function knows no Prefect; this module knows no stage's work. What is cached is the place of a manifest. A hit is
believed only after every file it names has been hashed again.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import Task, task
from prefect.client.schemas.objects import State, TaskRun
from prefect.task_engine import TaskRunTimeoutError

import marline.archive
import marline.deploy
import marline.load
from marline.core import (
    STAGES,
    Accelerator,
    Config,
    Manifest,
    RequestError,
    Stage,
    StageError,
    adopt,
    code_sha256,
    file_sha256,
    folder_sha256,
    is_complete,
    json_sha256,
    located,
    machine,
    project_root,
    read_manifest,
    verify,
)
from marline.handler import beside, handler_of
from pipelines.console import Console, Line
from pipelines.patience import DELAY_S, passing
from pipelines.store import Store, by_key, of_run

if TYPE_CHECKING:
    from marline.tune import Baseline

MEASURED = ("deploy", "tune")  # what they find out is true of this machine only
AFTERWARDS = {  # of deploy: where a finished run goes, and how a server takes it
    *("target", "archive_url", "image", "replicas", "canary_percent", "canary_s", "keep_versions"),
}


@dataclass
class Run:
    """One run in progress: what it was told, where it writes, and the stages it has finished."""

    config: Config
    accelerator: Accelerator
    folder: Path
    console: Console
    baseline: "Baseline | None" = None  # whose load is sent too
    store: Store | None = None
    done: list[tuple[Manifest, bool]] = field(default_factory=list)  # and whether it was cached
    unsent: dict[str, Manifest] = field(default_factory=dict)  # by their places in the store

    def stage(self, work: Callable[..., Manifest], *inputs: Manifest) -> Manifest:
        """Run one stage, or take it from an earlier run where nothing that decides it has changed."""
        name = next(stage for stage in STAGES if stage == work.__name__)
        key = _key(name, self, inputs)
        with self.console.stage(name) as line:
            make = partial(self._make, name, key, partial(work, self, *inputs), line)
            manifest = self._take(name, key, make, line, refresh=self._must_be_fresh(name))
            try:
                verify(manifest)
            except StageError as error:
                line.say(f"{error}; doing it again")
                manifest = self._take(name, key, make, line, refresh=True)
            cached = manifest.run != self.folder.name
            fetched = cached and manifest.folder.parent == self.folder.resolve()
            if not fetched:
                self._keep(by_key(name, key), manifest, line, anew=not cached)
            line.done(manifest, cached=cached, fetched=fetched)
        adopt(self.folder, manifest)
        self.done.append((manifest, cached))
        return manifest

    def deliver(self) -> None:
        """Bring the finished run to its target, where that is not this machine."""
        told = marline.deploy.deliver(self.config, self.folder)
        if told:
            self.console.delivered(told)

    def share(self) -> None:
        """Bring to the store what did not get there yet, and the run when it is complete; StageError where that fails."""
        if self.store is None:
            return
        stages = STAGES if is_complete(self.folder) else ()
        run = {of_run(self.config.model, self.folder.name, stage): read_manifest(self.folder / stage) for stage in stages}
        try:
            for place, manifest in (self.unsent | run).items():
                self.store.send(manifest, place)
        except StageError as error:
            raise StageError(f"{error}. Nothing is lost: the run is in {self.folder}; the same command tries again") from None

    def _make(self, name: str, key: str, work: Callable[[], Manifest], line: Line) -> Manifest:
        """Take a stage from the store, else do its work."""
        found = None
        if self.store is not None and not self.unsent and not self._must_be_fresh(name):
            try:
                found = self.store.fetch(by_key(name, key), self.folder / name, self.config.model)
            except StageError as error:
                line.say(f"{error}; making it here")
        return found or work()

    def _keep(self, place: str, manifest: Manifest, line: Line, *, anew: bool) -> None:
        """Bring a stage to the store if it is not there; a store that fails is asked again when the run is at its end."""
        if self.store is None:
            return
        try:
            if self.unsent:
                self.unsent[place] = manifest
            elif anew or not self.store.holds(place):
                self.store.send(manifest, place)
        except StageError as error:
            self.unsent[place] = manifest
            line.say(f"{error}; it stays here until the run is at its end")

    def _take(self, name: Stage, key: str, work: Callable[[], Manifest], line: Line, *, refresh: bool) -> Manifest:
        told = STAGE.with_options(
            name=name,
            task_run_name=f"{name} {self.config.model}",
            refresh_cache=refresh,
            retries=self.config.retries,
            retry_delay_seconds=DELAY_S,
            retry_condition_fn=_again(name, line),
            timeout_seconds=self.config.timeouts_s[name],
        )
        try:
            folder = project_root() / told(key, work)
        except TaskRunTimeoutError:
            limit = f"timeouts_s.{name} = {self.config.timeouts_s[name]:g}"
            raise StageError(f"{name} was not done within {limit} seconds and was given up; raise that") from None
        try:
            return read_manifest(folder)
        except RequestError:
            if refresh:
                raise
            return self._take(name, key, work, line, refresh=True)  # the run it came from has been removed

    def _must_be_fresh(self, name: str) -> bool:
        """From the stage that `fresh` names; and a verdict on a run is found anew, as its baseline may be another by now."""
        first, judged = self.config.fresh, name == "report" and self.config.report.fail_if is not None
        return judged or (first is not None and STAGES.index(name) >= STAGES.index(first))

    def out(self, stage: str) -> Path:
        """The empty folder a stage writes to; what a try before left is removed, but for its logs."""
        out, logs = self.folder / stage, self.folder / "logs" / stage
        if out.exists():
            shutil.rmtree(out)
            if logs.exists():
                logs.rename(logs.with_name(f"{stage}-failed-{len(list(logs.parent.glob(f'{stage}-failed-*'))) + 1}"))
        out.mkdir()
        return out

    def handler(self, before: Manifest) -> Path:
        """The handler file of this model, whose task a stage before has found out."""
        return handler_of(project_root(), self.config.model, before.facts["task"], self.config.handler)


def _again(stage: str, line: Line) -> Callable[[Task[..., Any], TaskRun, State[Any]], bool]:
    """Prefect's question whether to try again, answered by `passing` and said to the user."""

    def again(_: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
        why = passing(stage, state.data)
        if why is not None:
            line.say(f"{state.data}\ntrying again in {DELAY_S:g} s ({run.run_count} of {run.empirical_policy.retries}): {why}")
        return why is not None

    return again


def run_stage(key: str, work: Callable[[], Manifest]) -> str:  # noqa: ARG001 - Prefect caches by the key
    """Do the work of one stage; the result that Prefect keeps is the folder of its manifest."""
    try:
        return os.path.relpath(work().folder, project_root())
    except SystemExit as error:  # a model's own code or handler; Prefect and we would end without a word
        raise StageError(f"code of the model called sys.exit({error.code!r}) and ended its stage") from error


STAGE = task(cache_key_fn=lambda _, told: str(told["key"]), persist_result=True, result_serializer="json")(run_stage)


def load(run: Run) -> Manifest:
    return marline.load.load(run.config.model, run.config.load, run.out("load"))


def wrap(run: Run, loaded: Manifest) -> Manifest:
    import marline.wrap  # noqa: PLC0415 - brings torch, as `export` does

    return marline.wrap.wrap(run.config.model, run.config.wrap, loaded, run.out("wrap"))


def export(run: Run, loaded: Manifest, wrapped: Manifest) -> Manifest:
    import marline.export  # noqa: PLC0415 - torch, transformers and torchvision: seconds, which a cached stage saves

    return marline.export.export(run.config.model, run.config.export, loaded, wrapped, run.handler(loaded), run.out("export"))


def archive(run: Run, wrapped: Manifest, exported: Manifest) -> Manifest:
    told, device = run.config.archive, run.accelerator.device
    return marline.archive.archive(run.config.model, told, wrapped, exported, run.handler(wrapped), device, run.out("archive"))


def deploy(run: Run, exported: Manifest, archived: Manifest) -> Manifest:
    return marline.deploy.deploy(run.config.model, run.config.deploy, exported, archived, run.out("deploy"))


def tune(run: Run, *inputs: Manifest) -> Manifest:
    import marline.tune  # noqa: PLC0415 - optimisers of scipy, as `report` brings matplotlib: a second for all that comes before

    return marline.tune.tune(run.config, run.accelerator, inputs, run.out("tune"), run.baseline)


def report(run: Run, *inputs: Manifest) -> Manifest:
    import marline.report  # noqa: PLC0415 - as above

    told, times = run.config.report, [(one.stage, one.seconds, cached, one.run) for one, cached in run.done]
    stages = [marline.report.StageTime(*time) for time in times]
    return marline.report.report(run.config.model, told, inputs, stages, run.folder.name, run.out("report"))


def _key(stage: str, run: Run, inputs: tuple[Manifest, ...]) -> str:
    """Everything that decides what a stage makes, hashed; the same key means the same work."""
    config, proof = run.config, run.config.deploy.model_dump(mode="json", exclude=AFTERWARDS)
    told: dict[str, Any] = {stage: proof if stage == "deploy" else getattr(config, stage).model_dump(mode="json")}
    if stage == "load":
        told["files"] = _sha256(marline.load.local_files(config.load))
    if stage == "wrap":
        told["files"] = _sha256([Path(one.layer.rpartition(":")[0]) for one in config.wrap.components])
        told["hub"] = os.environ.get("HF_ENDPOINT") if config.wrap.push else None  # another hub has nothing yet
    if stage in {"export", "archive"}:
        told["handler"] = _sha256(beside(run.handler(inputs[0])))  # what `assemble` takes along
        told["device"] = run.accelerator.device
    if stage == "archive":
        named = [*config.archive.extra_files, config.archive.requirements_file]
        told["files"] = _sha256([Path(file) for file in named if file is not None])
    if stage == "tune":
        told |= {"loadtest": config.loadtest.model_dump(mode="json"), "deploy": proof}
        replayed = [] if config.loadtest.replay is None else [located(config.loadtest.replay)]
        told["files"] = _sha256([project_root() / "loadtests", *replayed])
        told["baseline"] = run.baseline.as_json() if run.baseline is not None else None
        told["accelerator"] = run.accelerator.model_dump(mode="json")
    if stage in MEASURED:
        told["machine"] = machine()
    told |= {"stage": stage, "model": config.model, "inputs": [one.digest for one in inputs], "code": code_sha256(stage)}
    return json_sha256(told)


def _sha256(places: Iterable[Path]) -> list[list[str]]:
    """Names and digests of files and folders of the user's that a stage reads; not where they are, which machines differ in."""
    there = [place for place in places if place.exists()]
    return [[place.name, folder_sha256(place) if place.is_dir() else file_sha256(place)] for place in there]
