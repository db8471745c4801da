"""What a promise is worth: twenty tuning runs, and for each an independent, longer load at the very rate that was promised."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marline.loadtest import Load, percentile, slo_met
from packages.handler.bench.parts.figure import figure
from packages.tune.bench.parts.cells import AXES
from packages.tune.bench.parts.kept import once
from packages.tune.bench.parts.tunings import MODEL, emulating, loaded, tuned

# curve, time scale, objective in ms: chosen so that two cores carry the rates; each is tuned with four seeds
CURVES = (
    ("rn50_t4_pytorch_eager_amp", 4, 400),
    ("rn50_v100_pytorch_eager_fp32", 4, 300),
    ("bert_base_s128_t4_trt_fp16", 6, 300),
    ("bert_base_s384_t4_tf2_fp16", 1, 500),
    ("rn50_a100_ort_trt_fp16", 10, 400),
)
SEEDS, TWO_MODES = (1, 2, 3, 4), ("made_up_two_modes", 2, 300)
SECONDS, LONGER, OTHER = 90.0, 2, 1000  # of the load, times the tuner's own confirmation, and what its seed is further
LEAST = 15  # of twenty runs must promise a rate: who refuses everything breaks no promise
QUICK = ("profile=standard", "tune.trial_s=8", "tune.confirm_s=24", "tune.curve_repeats=15", *AXES)
SURE = 0.99


def promises() -> list[dict[str, Any]]:
    """Twenty tuning runs over emulated curves: no promise is refuted by a longer load; one with two modes is no exception."""
    runs = [promised(curve, seed) for seed in SEEDS for curve in CURVES]
    made = [run for run in runs if run["rps"]]
    refuted = [run for run in made if run["met"] is False]
    unseen = [run for run in made if run["met"] == "invalid"]
    told = [
        f"{run['curve']} seed {run['seed']}: {run['rps']:.1f}/s, p99 {run['p99_ms']:.0f} of {run['slo_ms']:.0f} ms"
        for run in refuted
    ]
    proven = sum(run["met"] is True for run in made)
    note = f"{len(made)} of {len(runs)} promised a rate, {proven} were proven again, {len(unseen)} could not be measured"
    bad = promised(TWO_MODES, 1)
    return [
        figure(
            f"promises refuted by {SECONDS:g} s of load ({SURE:.0%} reject test)",
            len(refuted),
            "",
            0,
            not refuted and not unseen and len(made) >= LEAST,
            len(made),
            "; ".join([note, *told]),
        ),
        _two_modes(bad),
    ]


def _two_modes(run: dict[str, Any]) -> dict[str, Any]:
    """A device that stalls: a refusal, or a rate that a longer load does not refute."""
    said = (
        f"p99 {run['p99_ms']:.0f} of {run['slo_ms']:.0f} ms in the longer load" if run["samples"] else "no longer load was sent"
    )
    holds = not run["rps"] or run["met"] in {True, None}
    name = f"{run['curve']}: the rate promised of a device with two modes"
    note = f"{'refused' if not run['rps'] else said}; the twin's highest rate of any: {run['hoped_rps']:.0f}/s"
    return figure(name, run["rps"], "/s", None, holds, 1, note)


def promised(curve: tuple[str, int, int], seed: int) -> dict[str, Any]:
    """One tuning run, what it cost, and what a longer load says of its promise; kept."""
    run: dict[str, Any] = once(f"promise-{curve[0]}-{seed}", lambda: _run(curve, seed), asked=[curve, QUICK, SECONDS])
    return run


def _run(curve: tuple[str, int, int], seed: int) -> dict[str, Any]:
    """One tuning run, and the load that asks whether its promise is true."""
    key, scale, slo_ms = curve
    words = (f"model={MODEL}", f"accelerator={key}", f"time_scale={scale}", f"tune.slo_ms={slo_ms}", *QUICK)
    result = tuned(*words, f"loadtest.seed={seed}")
    chosen = result["chosen"]
    found = {name: chosen[name] for name in ("batch_size", "max_batch_delay_ms", "workers", "rps")}
    hoped = max(told["rps"] for told in result["predictions"])
    run = {"curve": key, "seed": seed, "slo_ms": slo_ms, **found, "hoped_rps": hoped}
    run |= {name: result[name] for name in ("load_tests", "load_seconds", "gain", "noise", "answer")}
    if not chosen["rps"]:
        return run | {"met": None, "p99_ms": None, "samples": 0}
    seconds = max(SECONDS, LONGER * max(one["seconds"] for one in result["trials"] if _confirms(one, chosen)))
    told = {"rps": chosen["rps"], "seconds": seconds, "seed": OTHER + seed, "timeout_s": 3 * slo_ms / 1e3}
    load = Load(warmup_s=3, arrivals="poisson", **told)
    archive = Path(result["folder"], result["tuned"]["archive"])
    with emulating(*words) as bench:
        bench.server.load(archive, MODEL, **{name: chosen[name] for name in ("batch_size", "max_batch_delay_ms", "workers")})
        seen = loaded(bench, load)
    if seen.reason is not None:
        return run | {"met": "invalid", "p99_ms": None, "samples": 0}
    latencies_ms = seen.measured.latencies_ms
    met, p99_ms = slo_met(latencies_ms, slo_ms, 99, SURE), min(percentile(latencies_ms, 99), 1e9)
    return run | {"met": met, "p99_ms": p99_ms, "samples": int(latencies_ms.size)}


def _confirms(trial: Mapping[str, Any], chosen: Mapping[str, Any]) -> bool:
    names = ("batch_size", "max_batch_delay_ms", "workers")
    return trial["purpose"] == "confirm" and all(trial[name] == chosen[name] for name in names)
