"""Stage 6: measure the service curve, look for the best configuration, put it into the archive, serve that and confirm it."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from marline.archive import from_yaml, read_mar, requirements_of
from marline.core import (
    STAGES,
    Accelerator,
    Config,
    Manifest,
    StageError,
    TuneConfig,
    code_sha256,
    file_sha256,
    folder_sha256,
    located,
    machine,
    project_root,
    seal,
    seen_gpus,
    verify,
    write_json,
)
from marline.deploy import Server, prove, serving
from marline.handler import read_golden
from marline.loadtest import arrival_times, measuring
from marline.tune._answer import answer
from marline.tune._baseline import Baseline, send_baseline
from marline.tune._choose import Chooser
from marline.tune._curve import is_reported, measure_service
from marline.tune._devices import devices_of
from marline.tune._fit import largest_batches
from marline.tune._journal import Journal
from marline.tune._limits import few_threads, no_room, slo_of, within
from marline.tune._nvml import gpu_use
from marline.tune._predict import Forecaster
from marline.tune._result import found, watched
from marline.tune._runner import Runner, serve
from marline.tune._search import default_of, grid
from marline.tune._service import Service
from marline.tune._trial import Bench, load_of
from marline.tune._values import workers_within

GAPS_RPS, GAPS_S = 100.0, 400.0  # of the arrivals that rates are predicted with, where they are not Poisson's
IN_RESULT_ALONE = {"trials", "curve", "predictions", "compared", "service", "diagnoses", "outlook"}
NOT_REPORTED = (
    "the handler does not report its batches (MARLINE_BATCH_LOG): the service curve is what TorchServe timed "
    "around it, without stages, and how full batches were in the trials was not measured"
)


def tune(
    config: Config, accelerator: Accelerator, inputs: Sequence[Manifest], out: Path, baseline: Baseline | None = None
) -> Manifest:
    """Write `result.json`, `samples/` and `tuned/<model>.mar`; every figure in them was measured.

    `inputs` are the manifests of load, export, archive and deploy. Waits while another run measures on this machine. What the
    same command has measured before it was interrupted is not measured again, unless `fresh` says so. The load of a `baseline`
    is sent once more when all else is confirmed.
    """
    started = time.monotonic()
    loaded, exported, archived, deployed = inputs
    verify(archived)
    if deployed.facts["archive_sha256"] != archived.facts["sha256"]:
        raise StageError(f"deploy proved another archive than {archived.folder} holds; run again with fresh=deploy")
    archive, payloads = archived.path(archived.facts["archive"]), sorted(loaded.path("sample").iterdir())
    logs = out.parent / "logs" / "tune"
    workers, few = workers_within(config.tune.workers, from_yaml(read_mar(archive).config))
    threads = max(1, len(os.sched_getaffinity(0)) // max(workers))
    shared = accelerator.kind == "cpu" and min(workers) < max(workers)  # one processor, by all numbers of workers
    with measuring(f"{config.model}, run {out.parent.name}"), _server(config, accelerator, archive, logs, threads) as server:
        gpus = seen_gpus() if accelerator.kind == "cuda" else ()  # before a model of ours is on them
        journal = _journal(config, accelerator, archived.facts["sha256"], payloads, out, baseline)
        service = _service(journal, config, accelerator, server, archive, payloads, max(workers))
        slo, (told, left_out) = slo_of(config, service.points[0].p50_ms), within(config, service, workers)
        most = _largest_batches(journal, told, server, archive, config.model)
        reports = is_reported(service.points)
        bench = Bench(
            server, config.model, payloads, told, config.loadtest, slo["ms"], out, logs, reports, accelerator.kind == "cuda"
        )
        runner = Runner(bench, journal, expected=told.steps + 4)
        devices = devices_of(gpus, journal.read("gpu") or (), archive)
        chooser = Chooser(runner, archive, _forecast(bench, service, most), devices, threads if shared else None)
        choice = chooser.choose()
        unsent = send_baseline(chooser, baseline) if baseline is not None else []
        tuned = chooser.tuned_archive(choice.setting)
        if accelerator.kind != "emulated":
            runner.load(tuned.file, choice.setting)
            _prove(server, config.model, exported)
    if accelerator.kind == "emulated":  # answers are proven on a server that does not emulate
        with serving(config.deploy, logs, installs=requirements_of(archive) is not None) as server:
            serve(server, tuned.file, config.model, choice.setting)
            _prove(server, config.model, exported)
    result = {
        "slo": slo,
        **found(choice, runner, chooser.forecast),
        **({"gpu": [*journal.read("gpu"), *watched(runner)]} if accelerator.kind == "cuda" else {}),
        "warnings": [
            *[*few, *left_out, *no_room(told, most), *choice.warnings, *unsent],
            *[NOT_REPORTED] * (not reports),
            *[few_threads(workers, threads)] * shared,
        ],
        "tuned": {"archive": str(tuned.file.relative_to(out)), "sha256": tuned.sha256},
        "values": [asdict(value) for value in tuned.values],
        **_request(config, accelerator),
        "baseline": baseline.as_json() if baseline is not None else None,
        "seconds": round(time.monotonic() - started + sum(one.took_s for one in runner.trials if one.run is not None), 1),
    }
    random_weights = loaded.facts["weights"]["kind"] == "random"
    result["answer"] = answer(result, confidence=told.confidence, random_weights=random_weights)
    write_json(out / "result.json", result)
    facts = {key: value for key, value in result.items() if key not in IN_RESULT_ALONE}
    manifest = seal(out, model=config.model, config=config.tune, inputs=inputs, facts=facts, started=started)
    journal.close()
    return manifest


def _request(config: Config, accelerator: Accelerator) -> dict[str, Any]:
    """What was asked for, and where it was measured."""
    return {
        "strategy": config.tune.strategy,
        "objective": {"name": config.tune.objective, "at_rps": config.tune.at_rps},
        "accelerator": {"kind": accelerator.kind, "name": accelerator.name, "time_scale": accelerator.time_scale},
        "machine": machine(),
        "arrivals": config.loadtest.arrivals,
        "seed": config.loadtest.seed,
        "profile": config.profile,
    }


def _journal(
    config: Config,
    accelerator: Accelerator,
    archive_sha256: str,
    payloads: Sequence[Path],
    out: Path,
    baseline: Baseline | None = None,
) -> Journal:
    """What this command has measured before it was interrupted, or nothing; each word of the key decides what a trial shows."""
    told = {
        "archive": archive_sha256,
        "payloads": {file.name: file_sha256(file) for file in payloads},
        **{name: getattr(config, name).model_dump(mode="json") for name in ("tune", "loadtest", "deploy")},
        "accelerator": accelerator.model_dump(mode="json"),
        "machine": machine(),
        "code": code_sha256("tune"),
        "sender": folder_sha256(project_root() / "loadtests"),
        "replay": file_sha256(located(config.loadtest.replay)) if config.loadtest.replay is not None else None,
        "baseline": baseline.as_json() if baseline is not None else None,
    }
    fresh = config.fresh is not None and STAGES.index(config.fresh) <= STAGES.index("tune")
    return Journal.of(out.parent.parent, told, out.parent.name, fresh=fresh, keep=config.keep_runs)


def _service(
    journal: Journal,
    config: Config,
    accelerator: Accelerator,
    server: Server,
    archive: Path,
    payloads: Sequence[Path],
    workers: int,
) -> Service:
    """The service curve and what the server adds to it, measured unless an interrupted run has done so."""
    kept = journal.read("service")
    if kept is not None:
        return Service.read(kept)
    told = config.tune
    with gpu_use("service curve") as gpu:
        service = measure_service(
            server,
            archive,
            config.model,
            payloads,
            told.batch_sizes,
            told.curve_repeats,
            slo_ms=lambda t1_ms: slo_of(config, t1_ms)["ms"],
            shared=_is_shared(accelerator, workers),
        )
    journal.write("gpu", gpu)
    journal.write("service", asdict(service))
    return service


def _is_shared(accelerator: Accelerator, workers: int) -> bool:
    """Whether workers compute on one device; TorchServe gives each a GPU of its own as long as there are as many."""
    return accelerator.kind == "emulated" or (accelerator.kind == "cuda" and len(seen_gpus()) < workers)


def _forecast(bench: Bench, service: Service, most: Mapping[int, int]) -> Forecaster:
    """The twin of this server, and every setting there is to choose from; `most` is the largest batch by number of workers."""
    told, predicts = bench.tune, bench.tune.strategy == "predict"
    every = [default_of(told), *grid(told, told.batch_sizes)]
    settings = [one for one in every if one.batch_size <= most.get(one.workers, one.batch_size)]
    poisson = bench.loadtest.arrivals == "poisson"
    gaps = None if poisson else np.diff(arrival_times(replace(load_of(bench, GAPS_RPS, "search", 0), seconds=GAPS_S)))
    return Forecaster(service, settings, bench.slo_ms, told.percentile, gaps=gaps, trusted=predicts)


def _largest_batches(journal: Journal, told: TuneConfig, server: Server, archive: Path, model: str) -> dict[int, int]:
    """The largest batch by number of workers, where there is a bound; asked unless an interrupted run has done so."""
    kept = journal.read("largest")
    if kept is None:
        kept = sorted(largest_batches(server, archive, model, (1, *told.batch_sizes), told.workers).items())
        journal.write("largest", kept)
    return {int(workers): int(size) for workers, size in kept}


def _server(config: Config, accelerator: Accelerator, archive: Path, logs: Path, threads: int) -> Any:
    installs = requirements_of(archive) is not None
    return serving(config.deploy, logs, accelerator=accelerator, threads=threads, installs=installs)


def _prove(server: Server, model: str, exported: Manifest) -> None:
    pairs = read_golden(exported.path("golden.json"))
    prove(server.client, model, pairs, atol=exported.facts["atol"], rtol=exported.facts["rtol"])
