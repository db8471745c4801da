"""The tables of a capacity planner: cost, resources, where time goes, other loads and objectives, workers, cold start."""

from typing import Any

from marline.report._tables import Report, Row, Table
from marline.report._words import duration, milliseconds, number, percent


def priced(report: Report) -> Table:
    """What a million requests cost; no rows where no price is known."""
    told = report["cost"]
    head = ("each replica at", "requests/s", f"{told['currency']} per million", "per million within the SLO")
    rows = tuple(
        Row((percent(row["utilisation"]), *(number(row[key]) for key in ("rps", "per_million", "per_million_within_slo"))))
        for row in told["rows"]
    )
    return Table(head, rows)


def resourced(report: Report) -> Table:
    """What one replica takes at the chosen rate."""
    told = report["resources"]
    if told is None:
        return Table(("", "", ""), ())
    queue = "jobQueueSize of the tuned archive" + f"; at most {number(told['queue_bound'])} are still in time"
    rows = [
        ("memory of the largest worker", _unit(told["memory_mb"], "MB"), f"of {number(told['machine_memory_mb'])} MB"),
        ("processor of the load generator", percent(told["sender_cpu"]), "of a core, on the same machine"),
        ("processor of the server", "–", "not recorded"),
        ("in flight, counted", number(told["in_flight"]), "requests, the mean over the trial, lost ones until given up"),
        ("in flight, L = λ R", number(told["concurrency"]), "requests: rate × mean latency"),
        ("the same with headroom kept", number(told["planned_concurrency"]), "requests a replica: a target for an autoscaler"),
        ("places in the queue", number(told["job_queue_size"]), queue),
        ("connections", number(told["connections"]), "2 × rate × SLO"),
        ("bound by", told["bound_by"] or "–", "see below"),
    ]
    if told["power_w"] is not None:
        rows.append(("power of the GPUs", _unit(told["power_w"], "W"), f"{number(told['joules_per_request'])} J per request"))
    return Table(("", f"at {number(told['rps'])} /s", ""), tuple(Row(row) for row in rows), frozenset({0, 2}))


def spent(report: Report) -> Table:
    """Where a mean request spends its time; no rows where no rate held."""
    told = report["breakdown"]
    if told is None:
        return Table(("", "", "", ""), ())
    rows = []
    for part in told["parts"]:
        rows.append(_part(part, told["total_ms"]))
        if part["part"] == "wait":
            rows += [_part({**one, "part": f"of it {one['part']}"}, told["total_ms"]) for one in told["within"]]
    total = Row(("total", number(told["total_ms"]), percent(1), "measured"), "chosen")
    return Table(("part", "ms", "share", "known from"), (*rows, total), frozenset({0, 3}))


def objectives(report: Report) -> Table:
    """Rates under other objectives, with the chosen configuration; the best one for each as the twin has it."""
    told = report["sensitivity"]
    head = ("SLO", "ms", "measured /s", "simulated /s", "change", "best simulated /s", "with")
    rows = []
    for one in told["objective"] if told else ():
        seen, usual = one["simulated"] or {}, (told["objective"][1]["simulated"] or {}).get("rps")
        best = f"batch {seen['best_batch_size']}, delay {seen['best_max_batch_delay_ms']} ms" if seen.get("best_rps") else "–"
        change = _change(seen["rps"] / usual - 1) if seen and usual else "–"
        cells = (number(one["measured_rps"]), number(seen.get("rps")), change, number(seen.get("best_rps")), best)
        rows.append(Row((_times(one["factor"]), f"{one['slo_ms']:g}", *cells), "chosen" * (one["factor"] == 1)))
    return Table(head, tuple(rows), frozenset({0, 6}))


def loads(report: Report) -> Table:
    """The latency of the objective's percentile at other loads, with the chosen configuration."""
    told, name = report["sensitivity"], f"p{report['slo']['percentile']:g} ms"
    rows = []
    for one in told["load"] if told else ():
        seen, said = one["measured"], one["simulated"]
        measured = "–" if seen is None else f"{milliseconds(seen['tail_ms'], 1)} at {number(seen['rps'])} /s"
        cells = (measured, "–" if said is None else milliseconds(said["tail_ms"], 1), number((said or {}).get("mean_batch"), 2))
        rows.append(Row((_times(one["factor"]), number(one["rps"]), *cells), "chosen" * (one["factor"] == 1)))
    return Table(("load", "requests/s", f"{name} measured", f"{name} simulated", "mean batch simulated"), tuple(rows))


def scaled(report: Report) -> Table:
    """Rates by number of workers, beside the law fitted to them; no rows where it could not be fitted."""
    told = report["scaling"]
    if told["fit"] is None:
        return Table(("", "", ""), ())
    first = told["points"][0]["rps"] / told["points"][0]["workers"]
    rows = tuple(
        Row((str(one["workers"]), number(one["rps"]), percent(one["rps"] / one["workers"] / first))) for one in told["points"]
    )
    return Table(("workers", f"requests/s, {told['origin']}", "per worker, of the first"), rows)


def started(report: Report) -> Table:
    """How long a new replica takes, step by step."""
    rows = tuple(
        Row((one["step"], "not measured" if one["seconds"] is None else duration(one["seconds"]), one["covers"]))
        for one in report["cold_start"]
    )
    return Table(("step", "time", "what that covers"), rows, frozenset({0, 2}))


def _part(part: dict[str, Any], total_ms: float) -> Row:
    return Row((part["part"], number(part["ms"]), percent(part["ms"] / total_ms), part["origin"]))


def _times(factor: float) -> str:
    return "as it is" if factor == 1 else _change(factor - 1)


def _change(share: float) -> str:
    return f"{100 * share:+.0f} %"


def _unit(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{number(value)} {unit}"
