"""Every table of the report as words: HTML and Markdown lay out the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from marline.report._words import MET, SIGNS, duration, milliseconds, number, percent

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """Cells of one row; `kind` is chosen, invalid or nothing."""

    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A head and rows; the columns named in `words` are text, all others figures."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    words: frozenset[int] = frozenset({0})


def beside(report: Report) -> Table:
    """The chosen configuration beside TorchServe's default, and between them the runner-up where there is one."""
    second = report["runner_up"]
    pair = (report["default"], *([] if second is None else [second]), report["chosen"])
    lines = [
        ("batchSize", [str(config["batch_size"]) for config in pair]),
        ("maxBatchDelay", [f"{config['max_batch_delay_ms']} ms" for config in pair]),
        ("workers", [str(config["workers"]) for config in pair]),
        ("highest rate within the SLO", [_rate(config) for config in pair]),
        *((f"{name} at that rate", [_percentile(config, f"{name}_ms") for config in pair]) for name in ("p50", "p95", "p99")),
        ("requests measured", [number(config["samples"]) for config in pair]),
        ("SLO", [_met(config["slo_met"]) for config in pair]),
    ]
    rows = tuple(Row((name, *values)) for name, values in lines)
    return Table(("", "TorchServe's default", *([] if second is None else ["runner-up (search)"]), "chosen"), rows)


def planned(report: Report) -> Table:
    """Replicas for multiples of the target."""
    rows = tuple(
        Row(
            (
                f"{row['factor']:g}×",
                "–" if row["target_rps"] is None else f"{number(row['target_rps'])} /s",
                "–" if row["replicas"] is None else number(row["replicas"]),
                percent(row["busy"]),
                _without_one(row),
                "–" if row["with_spare"] is None else f"{number(row['with_spare'])} ({percent(row['busy_with_spare'])})",
            )
        )
        for row in report["replicas"]["plan"]
    )
    return Table(("load", "requests", "replicas", "busy", "busy with one lost", "N+1 (busy)"), rows)


def tried(report: Report) -> Table:
    """Every trial, those that do not count included."""
    head = ("#", "batch", "delay ms", "offered /s", "n", "mean batch", "p50 ms", "p95 ms", "p99 ms", "errors", "SLO", "remark")
    rows = tuple(_trial(place, trial, report["chosen"]) for place, trial in enumerate(report["trials"], 1))
    return Table(head, rows, frozenset({10, 11}))


def served(report: Report) -> Table:
    """The service curve t(b) measured in the worker."""
    head = ("batch", "n", "p50 ms", "p95 ms", "preprocess ms", "inference ms", "postprocess ms", "ms per item", "items/s")
    rows = tuple(
        Row(
            (
                str(point["batch"]),
                number(point["samples"]),
                *(number(point[key]) for key in ("p50_ms", "p95_ms", "pre_ms", "inference_ms", "post_ms")),
                number(point["p50_ms"] / point["batch"]),
                number(1000 * point["batch"] / point["p50_ms"]),
            )
        )
        for point in report["curve"]
    )
    return Table(head, rows, frozenset())


def proven(report: Report) -> Table:
    """How equal the exported model is to the eager one: the largest absolute difference in each case, wherever it ran."""
    points = report["parity"]["parity"]
    stages = list(dict.fromkeys(point["stage"] for point in points))
    cells = {(point["case"], point["stage"]): _tiny(point["max_abs"]) for point in points}
    cases = dict.fromkeys(point["case"] for point in points)
    rows = tuple(Row((case, *(cells.get((case, stage), "–") for stage in stages))) for case in cases)
    return Table(("case", *stages), rows)


def timed(report: Report) -> Table:
    """How long each stage took; what came from the cache was paid for by another run."""
    rows = tuple(
        Row(
            (
                time["name"],
                duration(time["seconds"]),
                f"cached, from run {time['run']}" if time["cached"] else "made in this run",
            )
        )
        for time in report["stages"]
    )
    spent = sum(time["seconds"] for time in report["stages"] if not time["cached"])
    return Table(("stage", "time", ""), (*rows, Row(("this run", duration(spent), ""), "chosen")), frozenset({0, 2}))


def origin(report: Report) -> Table:
    """Where the numbers come from."""
    return Table(("", ""), tuple(Row(pair) for pair in _origins(report)), frozenset({0, 1}))


def _origins(report: Report) -> Sequence[tuple[str, str]]:
    machine, archive, measured, source = report["machine"], report["archive"], report["measured"], report["source"]
    tuned, slo, weights = report["tuned"], report["slo"], report["weights"]
    seeds = [("weights", measured["weights_seed"]), ("arrivals", measured["arrivals_seed"])]
    return [
        ("run", f"{report['run']} (named after its start, UTC)"),
        ("source", f"{source['source']}, {source['task']}, {_parameters(source['parameters'])}"),
        ("weights", f"{weights['kind']}: {weights['detail']}"),
        ("archive", f"{archive['archive']}, {number(archive['size_bytes'] / 2**20)} MiB, sha256 {archive['sha256']}"),
        ("tuned archive", f"{tuned['archive']}, sha256 {tuned['sha256']}"),
        ("raw rows", f"tune/samples, {len(report['trials'])} files, a sha256 of each in report.json under observed"),
        ("machine", f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB memory"),
        ("GPUs", ", ".join(machine["gpus"]) or "none"),
        ("SLO origin", {"auto": "auto: max(5 × t(1), 50 ms)", "config": "configured"}[slo["origin"]]),
        ("load", f"open loop, {measured['arrivals'] or 'open'} arrivals, sent from the same machine over loopback"),
        ("seeds", ", ".join(f"{name} {seed}" for name, seed in seeds if seed is not None)),
        ("versions", ", ".join(f"{name} {version}" for name, version in report["versions"].items())),
    ]


def _parameters(count: int | None) -> str:
    return "parameters not counted" if count is None else f"{number(count / 1e6)} million parameters"


def _trial(place: int, trial: dict[str, Any], chosen: dict[str, Any]) -> Row:
    keys = ("batch_size", "max_batch_delay_ms", "workers")
    ours = all(trial[key] == chosen[key] for key in keys)
    said = [f"INVALID: {trial['invalid_reason']}" if not trial["valid"] else "confirms" * (trial["purpose"] == "confirm")]
    said += [f"{count} × {what}" for what, count in trial.get("error_classes", {}).items()]
    wasted = trial.get("wasted")
    said += [f"{wasted} computed for nobody"] if wasted else []
    cells = (
        str(place),
        str(trial["batch_size"]),
        str(trial["max_batch_delay_ms"]),
        number(trial["offered_rps"]),
        number(trial["samples"]),
        number(trial["mean_batch"], 2),
        *(milliseconds(trial[f"{name}_ms"], trial["samples"]) for name in ("p50", "p95", "p99")),
        number(trial["errors"]),
        _met(trial["slo_met"]) if trial["valid"] else "–",
        "; ".join(filter(None, said)),
    )
    return Row(cells, "invalid" if not trial["valid"] else "chosen" * ours)


def _tiny(value: float) -> str:
    return f"{value:.1e}".replace("e-0", "e-") if value else "0"


def _rate(config: dict[str, Any]) -> str:
    return f"{number(config['rps'])} /s" if config["rps"] else "none"


def _percentile(config: dict[str, Any], key: str) -> str:
    if not config["rps"]:
        return "–"  # figures of a rate that was too high are in the table of trials
    return f"{milliseconds(config[key], config['samples'])} ms"


def _met(met: bool | None) -> str:
    return f"{SIGNS[met]} {MET[met]}"


def _without_one(row: dict[str, Any]) -> str:
    if row["replicas"] is None:
        return "–"
    share = row["busy_without_one"]
    return "outage" if share is None else percent(share) + (" (SLO lost)" if share > 1 else "")
