"""The plan in words, laid out as HTML and as Markdown like the report."""

from typing import Any

from marline.plan import _tables
from marline.plan._content import AGREES
from marline.plan._tables import DEALT, milliseconds
from marline.report import inline, number, pages, percent, slo_words

Plan = dict[str, Any]
NO_PRICE = "Costs are missing: report.price_per_hour says what a replica is an hour."


def html(plan: Plan, *, wide: str, narrow: str) -> str:
    """One self-contained page; the pictures become part of it."""
    page = pages("html", "marline.plan").get_template("plan.html")
    return page.render(_words(plan) | {"wide": inline(wide), "narrow": inline(narrow)})


def markdown(plan: Plan) -> str:
    """Markdown as GitHub shows it; the picture is the file plan.svg beside it."""
    return pages("md", "marline.plan").get_template("plan.md").render(_words(plan))


def lines(plan: Plan) -> list[str]:
    """What the console says."""
    return [*plan["marks"], verdict(plan), f"proof: {_proof_words(plan)}", *(f"WARNING: {one}" for one in plan["warnings"])]


def verdict(plan: Plan) -> str:
    """How many replicas, how slow they are, what they cost."""
    peak, asked, totals = plan["peak"], plan["asked"], plan["totals"]
    state, dealt = peak["fixed"], f"behind {DEALT[asked['balancing']]}"
    tail = f"p{plan['slo']['percentile']:g} {milliseconds(state['tail_ms'])} at the peak"
    if asked["replicas"] is None:
        need = (
            f"{number(peak['peak_rps'])} requests/s of {plan['model']} need {number(peak['planned'])} replicas {dealt}: {tail}"
        )
    else:
        holds = "hold" if state["slo_met"] else "do not hold"
        need = (
            f"{number(peak['planned'])} replicas of {plan['model']} {dealt} {holds} {slo_words(plan['slo'])} at "
            f"{number(peak['peak_rps'])} requests/s: {tail}; {number(peak['recommended'])} are recommended"
        )
    fixed, hourly = (f"{number(one['replica_hours'])} replica-hours{_price(one)}" for one in totals.values())
    return f"Simulated: {need}; {asked['hours']} h take {fixed}, or {hourly} where their number follows the load by the hour."


def _words(plan: Plan) -> Plan:
    tables = {
        name: getattr(_tables, name)(plan) for name in ("figures", "by_hour", "counted", "totalled", "lost", "proven", "origin")
    }
    notes = {
        "picture": _picture_words(plan),
        "counted": _counted_words(plan),
        "proof": _proof_words(plan),
        "price": "" if plan["asked"]["price_per_hour"] else NO_PRICE,
    }
    return {"plan": plan, "verdict": verdict(plan), "notes": notes, "left_out": _left_out(plan), **tables}


def _picture_words(plan: Plan) -> str:
    trace = {
        "diurnal": f"One harmonic, lowest at 4 with {percent(plan['asked']['valley'])} of the peak, highest at 16.",
        "constant": "The same load throughout.",
    }.get(plan["asked"]["trace"], f"The load of {plan['asked']['trace']}, by the minute.")
    return f"{trace} Every hour is planned for its highest minute, and its latencies are of that; infinite ones are at the top."


def _counted_words(plan: Plan) -> str:
    peak = plan["peak"]
    return (
        "The rule is what counts: the room it keeps free is for what the twin does not know (below). The twin's own is the "
        "edge: one less, and the objective is missed or more than 98 % used, though nothing else goes wrong. "
        f"{number(peak['planned'])} replicas carry up to {number(peak['most_rps'])} requests/s within it, says the twin."
    )


def _proof_words(plan: Plan) -> str:
    proof = plan["proof"]
    what = f"{proof['seconds']:g} s at the peak, {proof['requests']:,} requests one by one behind the balancer"
    if proof["agrees"] is None:
        return f"{what}: too much for {number(proof['replicas'])} replicas, queues grow, and nothing can be compared."
    verdict_ = "agrees" if proof["agrees"] else "DOES NOT AGREE"
    played, level = (milliseconds(proof[key]["tail_ms"]) for key in ("played", "level"))
    off = f"{100 * proof['off']:+.1f} %"
    return f"{what}: p{plan['slo']['percentile']:g} {played}, by level {level}, {off}; it {verdict_} within {percent(AGREES)}."


def _left_out(plan: Plan) -> list[str]:
    """What is not in the figures."""
    dealt = {
        "round_robin": "one balancer deals in strict turn; several that each do so by themselves deal less evenly",
        "least_outstanding": "one balancer knows of every request and answer at once; several, or late news, choose worse",
    }[plan["asked"]["balancing"]]
    return [
        "arrivals within a minute are Poisson; bursts and clients that retry what was refused make it worse",
        dealt,
        "every replica is as fast as the one that was measured, and requests are like its samples",
        "the way between balancer and replica, and what the balancer itself takes",
        "starting replicas: one for the next hour must be ready when that begins; and what is in flight when one is lost",
    ]


def _price(total: Plan) -> str:
    return "" if total["cost"] is None else f" (cost {number(total['cost'])})"
