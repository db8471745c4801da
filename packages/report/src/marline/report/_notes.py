"""The sentences around the tables and pictures."""

from typing import Any, NamedTuple

from marline.report._found import effort_words, others_diagnosed, twin_words
from marline.report._verdict import is_default, noise_words, objective_words
from marline.report._words import MET, duration, is_reported, judged_percentile, milliseconds, number, percent, slo_words

Report = dict[str, Any]


class Figure(NamedTuple):
    """One large number."""

    name: str
    value: str
    unit: str
    note: str


def figures(report: Report) -> list[Figure]:
    """The four numbers one would quote."""
    chosen, slo, plan = report["chosen"], report["slo"], report["replicas"]
    first = plan["plan"][0]
    count = "–" if first["replicas"] is None else number(first["replicas"])
    by_rate = report["gain"] is not None and report["objective"]["name"] == "rate"
    gain = f"{number(report['gain'])}×" if by_rate else "–"
    beside = "the default was chosen" if is_default(report) else f"same SLO; A/A noise {noise_words(report)}"
    if not by_rate:
        beside = "no rate to compare with" if report["gain"] is None else f"chosen for {objective_words(report)}"
    target = (
        f"for {number(first['target_rps'])} /s, {percent(plan['headroom'])} headroom" if first["replicas"] else plan["reason"]
    )
    return [
        Figure(
            "Rate within the SLO",
            number(chosen["rps"]) if chosen["rps"] else "none",
            "/s" * bool(chosen["rps"]),
            MET[chosen["slo_met"]],
        ),
        Figure(
            "p99 at that rate",
            milliseconds(chosen["p99_ms"], chosen["samples"]) if chosen["rps"] else "–",
            "ms" * bool(chosen["rps"]),
            f"SLO {slo_words(slo)}" + f", n = {number(chosen['samples'])}" * bool(chosen["rps"]),
        ),
        Figure("Gain over the default", gain, "", beside),
        Figure("Replicas", count, "", target),
    ]


def notes(report: Report) -> dict[str, str]:
    """What a reader must know to read each table."""
    measured, parity, judged = report["measured"], report["parity"], judged_percentile(report).removesuffix("_ms")
    return {
        "picture": (
            f"Each line is one configuration, each point one trial: its {judged} at the rate it was offered. "
            "The band of the chosen one reaches down to its p50, the dotted line is its p95. A hollow cross is an invalid "
            f"trial; a triangle at ∞ lost more requests than a {judged} allows."
        ),
        "latency": "Latency counts from the moment a request was due, so time spent in a backlog is part of it.",
        "replicas": _replicas_note(report),
        "busy": (
            "Busy is the share of the rate within the SLO that each replica then carries; above 100 % the SLO no longer holds. "
            "Replicas were not measured together: the plan assumes they do not disturb each other."
        ),
        "trials": _trials_note(measured) + ("" if is_reported(report) else " Mean batches were not measured."),
        "curve": _curve_note(report),
        "effort": effort_words(report),
        "map": _map_note(report),
        "twin": twin_words(report),
        "diagnosed": f"Batches are those that were achieved, of those that were allowed.{others_diagnosed(report)}",
        "parity": _parity_note(parity, report["deployed"]),
    }


def _parity_note(parity: dict[str, Any], deployed: dict[str, Any]) -> str:
    made = (
        f"Served without a graph: {parity['reason']}."
        if parity["method"] == "none"
        else f"Exported by {parity['method']} and compared with the eager model: the largest absolute difference of any output "
        f"in each case and place. Up to {parity['atol']:g} absolute plus {parity['rtol']:g} relative were allowed."
    )
    suspects = (
        f" While tracing, the code looked at values in {', '.join(parity['suspects'][:3])}." if parity["suspects"] else ""
    )
    skipped = f" Not proven: {'; '.join(parity['skipped'])}." if parity["skipped"] else ""
    return (
        f"{made} {parity['golden']} golden answers were kept, and {deployed['golden']} of them came back right over HTTP from "
        f"a server that was ready after {duration(deployed['ready_s'])}.{suspects}{skipped}"
    )


def _replicas_note(report: Report) -> str:
    plan = report["replicas"]
    if plan["reason"]:
        return f"No number of replicas can be given: {plan['reason']}."
    share = f"{1 - plan['headroom']:.2g}"
    whence = (
        "the rate measured (set report.target_rps to plan for yours)" if plan["target_origin"] == "measured" else "the target"
    )
    unsure = "" if report["chosen"]["slo_met"] else " The rate is not confirmed, so neither is the plan."
    return (
        f"1× is {whence}, {number(plan['target_rps'])} requests/s. With {percent(plan['headroom'])} headroom, "
        f"replicas = ⌈target ÷ ({share} × {number(plan['rate_rps'])} requests/s)⌉.{unsure}"
    )


def _trials_note(measured: dict[str, Any]) -> str:
    invalid = measured["invalid_trials"]
    kept = f"{invalid} of them invalid, shown with the reason and counted nowhere" if invalid else "all valid"
    return (
        f"{measured['trials']} trials in {duration(measured['seconds'])}, {kept}. n is the number of requests behind the "
        "percentiles; ∞ means that more requests were lost than the percentile allows."
    )


def _map_note(report: Report) -> str:
    workers = report["chosen"]["workers"]
    return (
        f"Requests/s within the SLO for each batch size and delay, with {workers} worker{'s' * (workers != 1)}; below it the "
        "mean batch achieved. Framed cells were measured: the highest rate that a trial held; the heavy frame is the chosen "
        "one. All others are predicted by the twin (≈), hatched ones at no rate. A cross says that a higher rate was tried and "
        "missed the SLO, or, without a frame, that every rate tried did."
    )


def _curve_note(report: Report) -> str:
    curve = report["curve"]
    best = min(curve, key=lambda point: point["p50_ms"] / point["batch"])
    single = next(point for point in curve if point["batch"] == min(point["batch"] for point in curve))
    ratio = (single["p50_ms"] / single["batch"]) / (best["p50_ms"] / best["batch"])
    worth = (
        f"an item in a batch of {best['batch']} costs {number(best['p50_ms'] / best['batch'])} ms, "
        f"{number(ratio, 2)}× less than in a batch of {single['batch']}"
        if best is not single
        else "batching makes no item cheaper on this machine"
    )
    if is_reported(report):
        return f"Time the worker takes for one batch, measured inside it without queueing: {worth}."
    return (
        f"Time the handler takes for one batch, measured around it by TorchServe without queueing: {worth}. Its stages are not "
        "known, because the handler does not report its batches."
    )


def frontend(report: dict[str, Any]) -> str:
    """The lines of model-config.yaml that hold the tuned values; a list that is empty is not said there."""
    values = [told for told in report["values"] if told["now"] != []]
    return "\n".join(f"{key}: {told['now']}" for told in values for key in told["key"].split(", "))


def register(report: dict[str, Any]) -> str:
    """The request that registers the archive with the chosen configuration.

    Query parameters, never a JSON body: TorchServe reads a delay missing there as -10000. Workers come from the archive.
    """
    chosen, file = report["chosen"], report["archive"]["archive"]
    query = f"url={file}&batch_size={chosen['batch_size']}&max_batch_delay={chosen['max_batch_delay_ms']}&synchronous=true"
    return f'curl -X POST -H "Authorization: Bearer $TOKEN" \\\n  "127.0.0.1:8081/models?{query}"'


def untested(report: dict[str, Any]) -> list[str]:
    """What no number here speaks about."""
    measured = report["measured"]
    tried = sorted({report["chosen"]["workers"], *(trial["workers"] for trial in report["trials"])})
    arrivals = measured["arrivals"] or "open-loop"
    lines = [
        "a network between client and server: load came over loopback, from the machine that served it",
        "payloads other than the sample inputs",
        f"longer than {duration(measured['longest_trial_s'])} at a stretch: a slower leak, drift or throttling would not show",
        f"arrivals other than {arrivals} ones, bursts for example",
        f"other worker counts than {', '.join(map(str, tried))}, and other models on the same server",
        "a replica that has just started, and the loss of one: the plan reckons with it, no replica was taken away",
    ]
    if report["accelerator"]["kind"] == "emulated":
        lines.insert(0, "the accelerator itself: the forward pass was a sleep along a published service curve")
    if report["weights"]["kind"] == "random":
        lines.insert(0, "whether the answers are any good: the weights are random")
    return lines
