"""How the configuration was found, in tables: predicted against measured, diagnoses, the archive's values, the GPUs."""

from collections import Counter
from statistics import median
from typing import Any

from marline.report._tables import Report, Row, Table
from marline.report._words import MET, milliseconds, number, percent

KEYS = ("batch_size", "max_batch_delay_ms", "workers")


def compared(report: Report) -> Table:
    """What the twin said of each trial beside what was measured, at the rate that was offered."""
    head = ("batch", "delay ms", "workers", "offered /s", "p50 ms", "predicted", "p99 ms", "predicted", "off by", "mean batch")
    rows = []
    for told in report["compared"]:
        seen, said = told["measured"], told["predicted"]
        batches = f"{number(seen['mean_batch'], 2)} ({number(said['mean_batch'], 2)})"
        cells = (
            *(str(told[key]) for key in KEYS),
            number(told["offered_rps"]),
            *(milliseconds(one[key], 1) for key in ("p50_ms", "p99_ms") for one in (seen, said)),
            _signed(error_of(told)),
            batches,
        )
        rows.append(Row(cells, "chosen" * _same(told, report["chosen"])))
    return Table((*head[:-1], "mean batch (predicted)"), tuple(rows), frozenset())


def error_of(told: dict[str, Any]) -> float | None:
    """Predicted p99 over the measured one, less 1; None where either lost more requests than that allows."""
    seen, said = told["measured"]["p99_ms"], told["predicted"]["p99_ms"]
    return said / seen - 1 if seen and said else None


def errors_of(report: Report) -> tuple[int, float | None]:
    """How many predictions of p99 can be judged, and the median of how far they were off, as a share."""
    found = [abs(error) for told in report["compared"] if (error := error_of(told)) is not None]
    return len(found), median(found) if found else None


def diagnosed(report: Report) -> Table:
    """What bounds each configuration that was measured, the chosen one first."""
    tried = {_key(trial) for trial in report["trials"]}
    told = [one for one in report["diagnoses"] if _key(one) in tried or _same(one, report["chosen"])]
    told.sort(key=lambda one: not _same(one, report["chosen"]))
    rows = (
        Row((*(str(one[key]) for key in KEYS), one["kind"], one["words"]), "chosen" * _same(one, report["chosen"]))
        for one in told
    )
    return Table(("batch", "delay ms", "workers", "bound by", "because"), tuple(rows), frozenset({3, 4}))


def others_diagnosed(report: Report) -> str:
    """How many of the configurations that were only predicted are bound by what; empty where there are none."""
    tried = {_key(trial) for trial in report["trials"]} | {_key(report["chosen"])}
    kinds = Counter(one["kind"] for one in report["diagnoses"] if _key(one) not in tried)
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f" Of those that were predicted and not measured: {counted}." if counted else ""


def valued(report: Report) -> Table:
    """The values the tuned archive asks for, and what it asked for before."""
    rows = (
        Row((one["key"], _value(one["was"]), _value(one["now"]), one["why"]), "chosen" * (one["was"] != one["now"]))
        for one in report["values"]
    )
    return Table(("model-config.yaml", "was", "is", "why"), tuple(rows), frozenset({0, 3}))


def _value(told: int | list[int]) -> str:
    """A number, or the GPUs of deviceIds; where none are said TorchServe chooses."""
    if isinstance(told, list):
        return ", ".join(map(str, told)) or "–"
    return number(told)


def watched(report: Report) -> Table:
    """What the GPUs did; no rows where there is none."""
    head = ("while", "GPU", "utilisation", "memory MB", "power W", "clock MHz", "lowest MHz", "°C")
    rows = (
        Row(
            (
                one["phase"],
                f"{one['gpu']}: {one['name']}",
                "–" if one["utilisation_percent"] is None else percent(one["utilisation_percent"] / 100),
                *(number(one[key]) for key in ("memory_mb", "power_w", "clock_mhz", "lowest_clock_mhz", "temperature_c")),
            )
        )
        for one in report.get("gpu", [])
    )
    return Table(head, tuple(rows), frozenset({0, 1}))


def effort_words(report: Report) -> str:
    """The strategy, the load tests and seconds it took, the noise, and who came second."""
    measured, second, noise = report["measured"], report["runner_up"], report["noise"]
    spent = f"{number(measured['load_tests'])} load tests, {number(measured['load_seconds'])} s of load"
    floor = (
        "The A/A pair, the same load twice, gave no pair of valid trials, so the noise of this machine is not known"
        if noise is None
        else f"The same load sent twice (A/A) differed by a factor of {_ratio(noise['p50'])} in p50 and {_ratio(noise['p99'])} "
        f"in p99, worth {percent(noise['rps_floor'])} of a rate: a gain below that is not claimed"
    )
    beaten = ""
    if second is not None:
        how = f"batchSize {second['batch_size']}, maxBatchDelay {second['max_batch_delay_ms']} ms, workers {second['workers']}"
        verdict = f"{number(second['rps'])} requests/s ({MET[second['slo_met']]})"
        beaten = f" The runner-up, {how}, carried {verdict} in a trial of the search, which no longer one has confirmed."
    return f"Strategy {report['strategy']}: {spent}. {floor}.{beaten}"


def twin_words(report: Report) -> str:
    """How well the twin predicted p99."""
    count, off = errors_of(report)
    if off is None:
        return "Nothing was predicted that a trial could be compared with."
    return (
        f"The twin, a simulation of the server's batching fed with the service curve, was off by {percent(off)} in p99 "
        f"(median of {count}). It speaks only here, in the map, and where simulated is said."
    )


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _signed(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:+.0f} %"


def _key(config: dict[str, Any]) -> tuple[int, ...]:
    return tuple(config[key] for key in KEYS)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return _key(one) == _key(other)
