"""The verdict in sentences: what was found, how sure it is, what it gains."""

import math
from typing import Any

from marline.report._gate import lines
from marline.report._words import (
    RANDOM,
    accelerator_words,
    configuration,
    judged_percentile,
    milliseconds,
    number,
    percent,
    slo_words,
)


def sentence(report: dict[str, Any]) -> str:
    """What was found, with its SLO and what ran it."""
    chosen, slo, where = report["chosen"], slo_words(report["slo"]), accelerator_words(report["accelerator"])
    if not chosen["rps"] and chosen["slo_met"] is None:
        return f"It is unknown whether {report['model']} meets its SLO of {slo} on {where}: no trial was valid."
    if not chosen["rps"]:
        return f"{report['model']} met its SLO of {slo} at no rate that was tried on {where}."
    rate, how = f"{number(chosen['rps'])} requests/s", configuration(chosen)
    if chosen["slo_met"] is None:
        return f"It is undecided whether {report['model']} carries {rate} within its SLO of {slo} on {where}, with {how}."
    carries = "carries" if chosen["slo_met"] else "does not carry"
    return f"{report['model']} {carries} {rate} per replica within its SLO of {slo} on {where}, with {how}."


def confidence(report: dict[str, Any], sure: float | None) -> str:
    """How sure the verdict is, with the sample size behind it; `sure` is the confidence asked for, 0 to 1."""
    chosen, slo = report["chosen"], report["slo"]
    if not chosen["rps"] and chosen["slo_met"] is None:
        return "Undecided: every trial of it was invalid."
    if not chosen["rps"]:
        return f"Not met: no configuration kept {slo_words(slo)} at any rate tried."
    if chosen["slo_met"] is None:
        return f"Undecided: too few samples (n = {chosen['samples']:,}). {_needed(slo['percentile'], sure)}"
    asked = f" with {100 * sure:g} % confidence" if sure is not None else ""
    if chosen["slo_met"]:
        return f"Met: {chosen['samples']:,} requests at this rate confirm it{asked}."
    p99 = milliseconds(chosen["p99_ms"], chosen["samples"])
    return f"Not met: {chosen['samples']:,} requests at this rate refute it{asked}; their p99 is {p99} ms."


def _needed(percentile: float, sure: float | None) -> str:
    if sure is None:
        return "Longer trials decide it."
    return (
        f"Deciding p{percentile:g} with {100 * sure:g} % confidence takes at least {fewest(percentile, sure)} requests, "
        "and more for each one over the SLO; longer trials decide it."
    )


def fewest(percentile: float, sure: float) -> int:
    """Fewest requests, none over the SLO, that prove a percentile: the smallest n with (percentile / 100)^n <= 1 - sure.

    The exact binomial test with no request over the SLO: P(Binomial(n, 1 - p) = 0) = p^n.
    """
    return math.ceil(math.log(1 - sure) / math.log(percentile / 100))


def gain_words(report: dict[str, Any]) -> str:
    """The chosen configuration against TorchServe's default, or why there is no ratio."""
    gain, default, chosen = report["gain"], report["default"], report["chosen"]
    name = f"TorchServe's default (batchSize {default['batch_size']}, maxBatchDelay {default['max_batch_delay_ms']} ms)"
    if gain is None:
        why = "it carried no rate" if chosen["rps"] else "neither it nor any other configuration carried a rate"
        return f"No gain over {name} can be given: {why} within the SLO."
    if is_default(report):
        return f"{name} is the best of what was tried; gain 1."
    if report["objective"]["name"] != "rate":
        key, noise = judged_percentile(report), report["noise"]
        there = f"its {key.removesuffix('_ms')} there is {number(chosen[key])} ms, that of {name} {number(default[key])} ms"
        off = "not known" if noise is None else f"a factor of {number(noise['p99'])}"
        return f"Chosen for {objective_words(report)}: {there} (A/A noise of p99 {off})."
    sure = "" if chosen["slo_met"] and default["slo_met"] else " Only an indication: not both rates are confirmed."
    times = f"{number(gain)}× the rate of {name}, which carries {number(default['rps'])} requests/s within the same SLO"
    if report["noise"] is None:
        return f"No gain is claimed: {times}, and the A/A noise of this machine is not known."
    if not is_above_noise(report):
        return f"No gain is claimed: {times}, and that is within the A/A noise of {noise_words(report)}."
    return f"{times} (A/A noise {noise_words(report)}).{sure}"


def objective_words(report: dict[str, Any]) -> str:
    """`latency at 100 requests/s`, where not the highest rate was looked for."""
    return f"{report['objective']['name']} at {number(report['objective']['at_rps'])} requests/s"


def is_above_noise(report: dict[str, Any]) -> bool:
    """Whether the gain is larger than the difference between two trials of the same; False where that is not known."""
    noise = report["noise"]
    return noise is not None and report["gain"] is not None and report["gain"] > 1 + noise["rps_floor"]


def noise_words(report: dict[str, Any]) -> str:
    """The noise as a share of a rate: no gain below it means anything."""
    return "not known" if report["noise"] is None else percent(report["noise"]["rps_floor"])


def is_default(report: dict[str, Any]) -> bool:
    """Whether TorchServe's default was chosen."""
    keys = ("batch_size", "max_batch_delay_ms", "workers")
    return all(report["chosen"][key] == report["default"][key] for key in keys)


def summary(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each line of the console's final table, from the content of report.json."""
    weights, slo, plan = report["weights"], report["slo"], report["replicas"]
    counts = [f"{row['replicas']} for {number(row['target_rps'])} requests/s" for row in plan["plan"] if row["replicas"]]
    weighed = f"{RANDOM} ({weights['detail']})" if weights["kind"] == "random" else f"{weights['kind']}: {weights['detail']}"
    return [
        ("model", report["model"]),
        ("weights", weighed),
        ("accelerator", accelerator_words(report["accelerator"])),
        ("SLO", f"{slo_words(slo)} ({slo['origin']})"),
        ("default", _line(report["default"])),
        ("chosen", _line(report["chosen"])),
        ("gain", "–" if report["gain"] is None else f"{number(report['gain'])}× (A/A noise {noise_words(report)})"),
        ("verdict", report["verdict"]["confidence"]),
        ("replicas", ", ".join(counts) or f"none: {plan['reason']}"),
        *([] if report["baseline"] is None else [("gate", line) for line in lines(report["baseline"])]),
    ]


def _line(config: dict[str, Any]) -> str:
    if not config["rps"]:
        return f"{configuration(config)}: no rate within the SLO"
    p99 = milliseconds(config["p99_ms"], config["samples"])
    return f"{configuration(config)}: {number(config['rps'])} requests/s, p99 {p99} ms (n = {config['samples']:,})"
