"""Stage 6: measure the service curve, try every configuration, put the best into the archive, serve that and confirm it."""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from marline.archive import from_yaml, read_mar, requirements_of, tuned
from marline.core import Accelerator, Config, Manifest, StageError, TuneConfig, machine, seal, verify, write_json
from marline.deploy import Server, prove, serving
from marline.handler import read_golden
from marline.loadtest import measuring
from marline.tune._curve import fitting_curve, is_reported
from marline.tune._runner import DEFAULT_SHARE, Runner, serve
from marline.tune._search import FIRST, calibration, capacity_rps, climb, default_of, grid, search
from marline.tune._service import Point
from marline.tune._setting import Setting
from marline.tune._trial import Bench, Trial

SLO_FACTOR, SLO_FLOOR_MS = 5.0, 50.0
NOT_REPORTED = (
    "the handler does not report its batches (MARLINE_BATCH_LOG): the service curve is what TorchServe timed "
    "around it, without stages, and how full batches were in the trials was not measured"
)


def tune(config: Config, accelerator: Accelerator, inputs: Sequence[Manifest], out: Path) -> Manifest:
    """Write `result.json`, `samples/` and `tuned/<model>.mar`; every figure in them was measured in this run.

    `inputs` are the manifests of load, export, archive and deploy. Waits while another run measures on this machine.
    """
    started = time.monotonic()
    loaded, exported, archived, deployed = inputs
    verify(archived)
    if deployed.facts["archive_sha256"] != archived.facts["sha256"]:
        raise StageError(f"deploy proved another archive than {archived.folder} holds; run again with fresh=deploy")
    archive, payloads = archived.path(archived.facts["archive"]), sorted(loaded.path("sample").iterdir())
    logs = out.parent / "logs" / "tune"
    with measuring(f"{config.model}, run {out.parent.name}"), _server(config, accelerator, archive, logs) as server:
        curve = fitting_curve(server, archive, config.model, payloads, config.tune.batch_sizes, config.tune.curve_repeats)
        slo, told = slo_of(config, curve), within_memory(config.tune, curve)
        bench = Bench(server, config.model, payloads, told, config.loadtest, slo["ms"], out, logs, is_reported(curve))
        runner = Runner(bench, expected=2 * told.steps + len(grid(told)) + 4)
        default, chosen, warnings = _choose(runner, archive, curve, out)
        file, sha256 = _tuned_archive(archive, chosen[0], out)
        if accelerator.kind != "emulated":
            runner.load(file, chosen[0])
            _prove(server, config.model, exported)
    if accelerator.kind == "emulated":  # answers are proven on a server that does not emulate
        with serving(config.deploy, logs, installs=requirements_of(archive) is not None) as server:
            serve(server, file, config.model, chosen[0])
            _prove(server, config.model, exported)
    result = {
        "slo": slo,
        "accelerator": {"kind": accelerator.kind, "name": accelerator.name, "time_scale": accelerator.time_scale},
        "curve": [asdict(point) for point in curve],
        "default": default[1],
        "chosen": chosen[1],
        "gain": round(chosen[1]["rps"] / default[1]["rps"], 3) if default[1]["rps"] and chosen[1]["rps"] else None,
        "trials": [trial.as_json() for trial in runner.trials],
        "warnings": [*_left_out(config.tune, told), *warnings, *([] if is_reported(curve) else [NOT_REPORTED])],
        "machine": machine(),
        "tuned": {"archive": str(file.relative_to(out)), "sha256": sha256},
        "arrivals": config.loadtest.arrivals,
        "seed": config.loadtest.seed,
        "profile": config.profile,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_json(out / "result.json", result)
    facts = {key: value for key, value in result.items() if key not in {"trials", "curve"}}
    return seal(out, model=config.model, config=config.tune, inputs=inputs, facts=facts, started=started)


def slo_of(config: Config, curve: Sequence[Point]) -> dict[str, Any]:
    """The latency objective: as configured, or max(5 t(1), 50 ms) where `tune.slo_ms=auto`."""
    if config.tune.slo_ms != "auto":
        return {"percentile": config.tune.percentile, "ms": config.tune.slo_ms, "origin": "config"}
    return {
        "percentile": config.tune.percentile,
        "ms": round(max(SLO_FACTOR * curve[0].p50_ms, SLO_FLOOR_MS), 1),
        "origin": "auto",
    }


def within_memory(config: TuneConfig, curve: Sequence[Point]) -> TuneConfig:
    """The same, without batch sizes that the curve does not reach because the worker's memory does not hold them."""
    return config.model_copy(update={"batch_sizes": tuple(size for size in config.batch_sizes if size <= curve[-1].batch)})


def _left_out(config: TuneConfig, told: TuneConfig) -> list[str]:
    sizes = [size for size in config.batch_sizes if size not in told.batch_sizes]
    return [f"batches of {min(sizes)} end the worker's memory (507): tune.batch_sizes {sizes} were not tried"] if sizes else []


def _server(config: Config, accelerator: Accelerator, archive: Path, logs: Path) -> Any:
    threads = max(1, len(os.sched_getaffinity(0)) // config.tune.workers)
    installs = requirements_of(archive) is not None
    return serving(config.deploy, logs, accelerator=accelerator, threads=threads, installs=installs)


Verdict = tuple[Setting, dict[str, Any]]


def _choose(runner: Runner, archive: Path, curve: Sequence[Point], out: Path) -> tuple[Verdict, Verdict, list[str]]:
    """The default and the chosen setting, each confirmed by a longer trial, and what must be said about them.

    The winner of the search is confirmed as the tuned archive, which asks for its values itself.
    """
    config, slo_ms = runner.bench.tune, runner.bench.slo_ms
    default = default_of(config)
    run = partial(runner.run, archive, purpose="search")
    best = search(grid(config), curve, slo_ms, config.steps, run, in_time=runner.in_time)
    # The default comes last: Java has compiled its hot paths by then, which it had not for the first candidates.
    begin_rps = FIRST * capacity_rps(curve, default) * calibration(best, curve)
    in_time = partial(runner.in_time, DEFAULT_SHARE)
    first = climb(default, begin_rps, slo_ms, config.steps, 0.0, run, in_time=in_time)
    confirmed = runner.confirm(archive, default, first.offered_rps) if first else None
    default_verdict = (default, _config(runner, default, confirmed))
    carried = confirmed.offered_rps if confirmed else 0.0
    if max((trial.offered_rps for trial in best.values()), default=0.0) <= carried:
        return default_verdict, default_verdict, [_nothing_better(runner, confirmed)]
    winner = max(best.values(), key=lambda trial: trial.offered_rps)
    file, _ = _tuned_archive(archive, winner.setting, out)
    tried = runner.confirm(file, winner.setting, winner.offered_rps, carried)
    if tried is None:
        lost = (
            f"{_told(winner.setting)} was the best in the search, but longer trials found no better rate within {slo_ms:g} ms"
        )
        return default_verdict, default_verdict, [f"{lost}: the default is kept"]
    none = [] if confirmed else [f"TorchServe's default held no rate within {slo_ms:g} ms, so no gain can be stated"]
    warnings = [*none, *_open_ended(runner, "TorchServe's default", confirmed), *_open_ended(runner, "the chosen one", tried)]
    return default_verdict, (winner.setting, _config(runner, winner.setting, tried)), warnings


def _config(runner: Runner, setting: Setting, confirmed: Trial | None) -> dict[str, Any]:
    """The report's CONFIG; rate 0 and the last trial's figures where no rate was within the objective, or none was judged."""
    trial = confirmed or next(trial for trial in reversed(runner.trials) if trial.setting == setting)
    told = trial.as_json()
    keys = ("batch_size", "max_batch_delay_ms", "workers", "rps", "p50_ms", "p95_ms", "p99_ms", "samples", "slo_met")
    found = {key: told[key] for key in keys}
    judged = any(one.valid for one in runner.trials if one.setting == setting)
    return found if confirmed else {**found, "rps": 0.0, "slo_met": False if judged else None}


def _open_ended(runner: Runner, name: str, confirmed: Trial | None) -> list[str]:
    """A rate that no failing trial bounds is a lower bound, and must be called one."""
    if confirmed is None:
        return []
    higher = [
        trial for trial in runner.trials if trial.setting == confirmed.setting and trial.offered_rps > confirmed.offered_rps
    ]
    if any(trial.valid and not trial.within(runner.bench.slo_ms) for trial in higher):
        return []
    why = "trials at more were invalid" if any(not trial.valid for trial in higher) else "no higher rate was seen to miss it"
    return [f"{name} may carry more than {confirmed.offered_rps:.1f} req/s within the objective: {why}"]


def _nothing_better(runner: Runner, confirmed: Trial | None) -> str:
    slo_ms = runner.bench.slo_ms
    if confirmed is None and any(trial.within(slo_ms) for trial in runner.trials):
        return f"no rate held within {slo_ms:g} ms in a longer trial; the machine may be busy, or tune.slo_ms too low"
    if not any(trial.valid for trial in runner.trials):
        return f"nothing could be measured: every trial was invalid; {runner.trials[-1].invalid_reason}. Is the machine busy?"
    if confirmed is None:
        lowest = min(trial.at_percentile_ms for trial in runner.trials)
        seen = f"the lowest p{runner.bench.tune.percentile:g} seen was {lowest:.0f} ms"
        return f"no tried rate of any configuration was within {slo_ms:g} ms; {seen}. Raise tune.slo_ms"
    within = [trial for trial in runner.trials if trial.setting != confirmed.setting and trial.within(slo_ms)]
    if not within:
        carried = f"TorchServe's default, {confirmed.offered_rps:.1f} req/s within {slo_ms:g} ms"
        return f"batching does not pay here: no batching configuration carried as much as {carried}: the default is kept"
    return _not_better(max(within, key=lambda trial: trial.offered_rps), confirmed, slo_ms)


def _not_better(other: Trial, default: Trial, slo_ms: float) -> str:
    return (
        f"batching does not pay here: {_told(other.setting)} carried {other.offered_rps:.1f} req/s within {slo_ms:g} ms, "
        f"TorchServe's default {default.offered_rps:.1f}: the default is kept"
    )


def _told(setting: Setting) -> str:
    return f"batch_size={setting.batch_size} max_batch_delay_ms={setting.max_batch_delay_ms}"


def _tuned_archive(archive: Path, setting: Setting, out: Path) -> tuple[Path, str]:
    """A copy of the archive that asks for the chosen values; everything else its config says stays as it was."""
    file = out / "tuned" / archive.name
    file.parent.mkdir(exist_ok=True)
    serving_as = replace(
        from_yaml(read_mar(archive).config),
        batch_size=setting.batch_size,
        max_batch_delay_ms=setting.max_batch_delay_ms,
        workers=setting.workers,
    )
    return file, tuned(archive, serving_as, file)


def _prove(server: Server, model: str, exported: Manifest) -> None:
    pairs = read_golden(exported.path("golden.json"))
    prove(server.client, model, pairs, atol=exported.facts["atol"], rtol=exported.facts["rtol"])
