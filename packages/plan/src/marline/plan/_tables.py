"""The plan in tables: HTML and Markdown lay out the same rows."""

from typing import Any

from marline.report import Figure, Row, Table, configuration, number, percent, slo_words

Plan = dict[str, Any]
DEALT = {"round_robin": "round robin", "least_outstanding": "least outstanding"}


def figures(plan: Plan) -> list[Figure]:
    """The four numbers one would quote."""
    peak, asked, fixed, slo = plan["peak"], plan["asked"], plan["totals"]["fixed"], plan["slo"]
    saved = 1 - plan["totals"]["hourly"]["replica_hours"] / fixed["replica_hours"]
    spent = (number(fixed["replica_hours"]), "replica-hours") if fixed["cost"] is None else (number(fixed["cost"]), "")
    spare = f"{asked['spare']} of them spare" if asked["replicas"] is None else "as asked"
    tail = milliseconds(peak["fixed"]["tail_ms"], "")
    return [
        Figure("Replicas", number(peak["planned"]), "", spare),
        Figure(f"p{slo['percentile']:g} at the peak", tail, "ms", f"SLO {slo_words(slo)}"),
        Figure(f"{'All' if fixed['cost'] is None else 'Cost'} of {asked['hours']} h", *spent, "the same number all day"),
        Figure("Less by the hour", percent(saved), "", "where their number follows the load"),
    ]


def by_hour(plan: Plan) -> Table:
    """Every hour at its highest minute."""
    tail = f"p{plan['slo']['percentile']:g} ms"
    shown = (tail, "used") if plan["asked"]["price_per_hour"] is None else (tail, "used", "cost")
    head = ("hour", "load /s", "fixed", *shown, "by the hour", *shown, "fewest")
    rows = []
    for hour in plan["hours"]:
        states = [
            cell for name in ("fixed", "hourly") for cell in (*_state(hour[name]), number(hour[name]["cost"]))[: 1 + len(shown)]
        ]
        cells = (f"{hour['hour']:02d}", number(hour["peak_rps"]), *states, number(hour["fewest"]))
        rows.append(Row(cells, "chosen" * (hour["hour"] == plan["peak"]["hour"])))
    return Table(head, tuple(rows), frozenset())


def counted(plan: Plan) -> Table:
    """Where the number of replicas comes from."""
    peak, asked = plan["peak"], plan["asked"]
    rule = f"{number(peak['peak_rps'])} / ({1 - asked['headroom']:.2g} × {number(plan['chosen']['rps'])} /s measured for one)"
    what_if = asked["replicas"] is not None
    rows = [
        Row((f"rule: {rule}", number(peak["rule"]))),
        Row(("fewest within the SLO by the twin, none of it kept free", number(peak["fewest"]))),
        Row((f"recommended: the larger, and {asked['spare']} spare", number(peak["recommended"])), "chosen" * (not what_if)),
        *[Row(("asked for: plan.replicas", number(peak["planned"])), "chosen")] * what_if,
    ]
    return Table(("at the peak", "replicas"), tuple(rows))


def totalled(plan: Plan) -> Table:
    """Both ways through the day."""
    names = {"fixed": "the same number all day", "hourly": "a number for each hour"}
    rows = tuple(
        Row((words, number(told["replica_hours"]), *(number(told[key]) for key in ("cost", "cost_per_million"))))
        for name, words in names.items()
        for told in (plan["totals"][name],)
    )
    return Table(("", "replica-hours", "cost", "cost per million requests"), rows)


def lost(plan: Plan) -> Table:
    """The peak with all replicas, and with one less."""
    peak, less = plan["peak"], plan["peak"]["without_one"]
    rows = (
        Row(("all", *_state(peak["fixed"]), percent(peak["fixed"]["busy"]))),
        Row(("one lost", *(("0", "outage", "–", "–") if less is None else (*_state(less), percent(less["busy"]))))),
    )
    return Table(("at the peak", "replicas", f"p{plan['slo']['percentile']:g} ms", "used", "busy"), rows)


def proven(plan: Plan) -> Table:
    """The minute at the peak beside its level, and the twin of one replica beside what was measured."""
    proof, checked, tail = plan["proof"], plan["checked"], f"p{plan['slo']['percentile']:g} ms"
    rows = (
        Row(("the peak, request by request", *_pair(proof["played"], "tail_ms"))),
        Row(("the peak, by its level", *_pair(proof["level"], "tail_ms"))),
        Row((f"one replica at {number(checked['rps'])} /s, measured (p99)", *_pair(checked["measured"], "p99_ms"))),
        Row((f"one replica at {number(checked['rps'])} /s, its twin (p99)", *_pair(checked["twin"], "p99_ms"))),
    )
    return Table(("", "p50 ms", tail), rows)


def origin(plan: Plan) -> Table:
    """What it is all made of."""
    asked, machine = plan["asked"], plan["machine"]
    told = {
        "tuned in run": plan["run"],
        "configuration": configuration(plan["chosen"]),
        "one replica": f"{number(plan['chosen']['rps'])} requests/s within {slo_words(plan['slo'])}",
        "machine": f"{machine['processor']}, {machine['cores']} cores, GPUs: {', '.join(machine['gpus']) or 'none'}",
        "trace": f"{asked['trace']}, {asked['hours']} h, growth {percent(asked['growth'])}",
        "requests": f"{plan['requests']:,}",
        "balancing": DEALT[asked["balancing"]],
        "seed": str(asked["seed"]),
    }
    return Table(("", ""), tuple(Row(pair) for pair in told.items()), frozenset({0, 1}))


def _state(state: Plan) -> tuple[str, str, str]:
    tail = "–" if state["p50_ms"] is None and state["slo_met"] else milliseconds(state["tail_ms"], "")
    return number(state["replicas"]), tail + " (SLO lost)" * (not state["slo_met"]), percent(state["utilisation"])


def _pair(told: Plan, tail: str) -> tuple[str, str]:
    return milliseconds(told["p50_ms"], ""), milliseconds(told[tail], "")


def milliseconds(value: float | None, unit: str = " ms") -> str:
    """A latency, infinite where it is none."""
    return "∞" if value is None else f"{number(value)}{unit}"
