"""The sentences of the planner's sections, each with the rule behind its figures."""

from typing import Any

from marline.report._words import accelerator_words, milliseconds, number, percent

Report = dict[str, Any]


def evidence(report: Report) -> str:
    """What the verdict rests on: how much was measured, the bracket of the limit, both intervals."""
    told = report["confidence"]
    count = f"{told['measurements']} measurements over {told['configurations']} configurations"
    predicted = f" ({told['predicted']} were predicted)" if told["predicted"] else ""
    return " ".join(filter(None, (f"{count}{predicted}.", _bracket(told["bracket"]), _tail(told), _gain(report))))


def _bracket(bracket: dict[str, Any]) -> str:
    held, missed = bracket["held_rps"], bracket["missed_rps"]
    if held is None:
        return "" if missed is None else f"The lowest rate tried, {number(missed)} requests/s, missed the SLO."
    if missed is None:
        return f"The highest rate tried, {number(held)} requests/s, held, so the limit may be higher."
    return f"The limit is between {number(held)} requests/s, which held, and {number(missed)}, which did not."


def _tail(told: dict[str, Any]) -> str:
    seen, name = told["tail_interval"], f"p{told['percentile']:g}"
    if told["tail_ms"] is None:
        return ""
    if seen is None:
        return f"No interval of {name} can be given: the trial is too short for blocks that are independent."
    bounds = f"{milliseconds(seen['low_ms'], 1)}–{milliseconds(seen['high_ms'], 1)} ms"
    sure = f"{percent(seen['confidence'])} CI {bounds}, {seen['blocks']} blocks"
    return f"At the chosen rate {name} is {number(told['tail_ms'])} ms ({sure})."


def _gain(report: Report) -> str:
    bounds, gain = report["confidence"]["gain_bounds"], report["gain"]
    if gain is None or report["objective"]["name"] != "rate" or bounds == {"low": None, "high": None}:
        return ""
    least = f"at least {number(bounds['low'])}×" if bounds["low"] else ""
    most = f"at most {number(bounds['high'])}×" if bounds["high"] else ""
    return f"By the brackets of both limits the gain is {' and '.join(filter(None, (least, most)))}."


def remarks(report: Report) -> dict[str, str]:
    """A note for each of the planner's sections."""
    return {
        "goodput": _goodput(report),
        "spare": (
            "N+1 is one replica more, a spare: when one is lost, as many as the plan counts are left, with their headroom."
        ),
        "cost": _cost(report),
        "resources": "" if report["resources"] else "No rate was within the SLO, so there is none to say this of.",
        "breakdown": _breakdown(report),
        "sensitivity": _sensitivity(report),
        "scaling": _scaling(report),
        "cold": "Measured where a stage did: a replica added under load takes at least this long before it helps.",
    }


def _goodput(report: Report) -> str:
    knee = report["knee"]
    what = "Goodput counts answers within the SLO from when they were due, per second; on the dashed line every request is one."
    if knee["knee_rps"] is None:
        few = "it takes three, and one of them without a lost request"
        found = f"No knee can be told from the loads measured of the chosen configuration, {knee['loads']}: {few}."
    else:
        end = {"lowest": "; it is the lowest load measured and may be lower", "highest": "; it may be higher than was measured"}
        beyond = end.get(knee["edge"], "")
        rate = f"{number(knee['knee_rps'])} requests/s"
        found = f"The knee, {rate}, is the load with the most throughput per latency (X / R){beyond}."
    if knee["plateau_rps"] is None:
        flat = "No plateau was reached: no step of 10 % more load brought less than 5 % more throughput."
    else:
        step = percent(knee["plateau_step"])
        flat = f"From {number(knee['plateau_rps'])} requests/s on it is a plateau: {step} more load brought less than 5 % more."
    return f"{what} {found} {flat}"


def _cost(report: Report) -> str:
    told = report["cost"]
    if told["reason"]:
        return f"No cost can be given: {told['reason']}."
    price = f"{number(told['price_per_hour'])} {told['currency']} an hour for each replica"
    emulated = report["accelerator"]["kind"] == "emulated"
    slept = (
        f" {accelerator_words(report['accelerator'])}: the rate is that of a sleep, so this is an example." if emulated else ""
    )
    return f"{price} ÷ (3600 × requests/s) × 10⁶; within the SLO with goodput in place of the rate.{slept}"


def _breakdown(report: Report) -> str:
    told = report["breakdown"]
    if told is None:
        return "No rate was within the SLO, so there is none to say this of."
    origins = {part["origin"] for part in told["parts"]}
    stages = "The handler's stages were measured under that load (its warm-up included)."
    if "service curve" in origins:
        stages = "The handler's stages are those of the service curve at the mean batch: measured, but not under that load."
    elif len(told["parts"]) == 2:
        stages = "The handler does not report its stages, so they are part of the wait."
    split = (
        f"How the wait divides is simulated: from outside the server only its sum is seen. A batch waits at most "
        f"{told['max_batch_delay_ms']} ms for others."
        if told["within"]
        else f"How the wait divides is not known; at most {told['max_batch_delay_ms']} ms of it is for others of a batch."
    )
    return f"Means over {told['requests']:,} requests at {number(told['rps'])} requests/s. {stages} {split}"


def _sensitivity(report: Report) -> str:
    told = report["sensitivity"]
    if told is None:
        return "No rate was within the SLO, so there is none to vary."
    twin = (
        "Simulated figures are the twin's, off as the table of predictions shows: their change says more than the rate itself."
        if told["load"][0]["simulated"] is not None
        else "The tuning run kept no simulation of these, so only trials are shown."
    )
    return f"The chosen configuration. Measured is the highest rate any trial held within that SLO. {twin}"


def _scaling(report: Report) -> str:
    told = report["scaling"]
    if told["fit"] is None:
        return f"No scaling law can be fitted: {told['reason']}; tune.workers=[1,2,4] measures more."
    fit, most = told["fit"], told["points"][-1]["workers"]
    whence = "measured rates" if told["origin"] == "measured" else "SIMULATED rates: the twin's, no server ran so many workers"
    peak = (
        f"its peak is at {number(fit['peak_workers'])} workers"
        if fit["peak_workers"] is not None
        else f"it has no peak up to {fit['limit_workers']} workers"
    )
    exact = " With as many points as parameters R² says nothing." if len(told["points"]) == 3 else ""
    return (
        f"The Universal Scalability Law X(N) = λN ÷ (1 + a(N - 1) + bN(N - 1)) fitted to {whence}: "
        f"λ {number(fit['rate_rps'])}, contention a {fit['contention']:.3g}, coherency b {fit['coherency']:.2g}, "
        f"R² {number(fit['r2'], 4)}; {peak}.{exact} "
        f"Not extrapolated beyond {fit['limit_workers']} workers, twice the {most} that are known."
    )
