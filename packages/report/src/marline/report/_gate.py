"""Whether a run is worse than `report.fail_if` allows: a rule fires only where it holds beyond the noise."""

import math
from collections.abc import Mapping
from typing import Any

from marline.core import GateRefused, ReportConfig, Rule, parse_rules
from marline.report._baseline import differences
from marline.report._ratios import NO_NOISE, Pair, Report, pair
from marline.report._tables import Row, Table
from marline.report._words import number, percent

PASSED, REFUSED = "passed", "refused"
SHOWN = {"fired": "FIRED", "held": "not so", "undecided": "undecided", "invalid": "INVALID", "unjudged": "not judged"}
NONE_YET = "no run is accepted yet; nox -s report -- model={model} accept=RUN makes one the baseline"


def judged(config: ReportConfig, now: Report, then: Report | None) -> dict[str, Any] | None:
    """What report.json says of the rules, `then` being the baseline; None where there are none."""
    if config.fail_if is None:
        return None
    differs = differences(now, then) if then is not None else []
    rules = [_judged(rule, now, then, differs) for rule in parse_rules(config.fail_if)]
    refusing = _refusing(config.undecided)
    return {
        "run": then["run"] if then is not None else None,
        "differs": differs,
        "undecided": config.undecided,
        "rules": rules,
        "state": REFUSED if any(rule["state"] in refusing for rule in rules) else PASSED,
    }


def _refusing(undecided: str) -> set[str]:
    """The states of a rule that refuse a run."""
    return {"fired", "invalid", *(["undecided"] if undecided == "fail" else [])}


def refusal(report: Mapping[str, Any]) -> list[str]:
    """What the report of a refused run says before all else; nothing of another."""
    gate = report["baseline"]
    if gate is None or gate["state"] != REFUSED:
        return []
    broken = [rule["rule"] for rule in gate["rules"] if rule["state"] in _refusing(gate["undecided"])]
    return [f"{lines(gate)[0].replace(REFUSED, REFUSED.upper(), 1)}: {' and '.join(broken)}; the numbers are under Baseline"]


def lines(gate: Mapping[str, Any]) -> list[str]:
    """The verdict, then one line for each rule, with its numbers."""
    against = f"against run {gate['run']}" if gate["run"] is not None else "without a baseline"
    said = (f"{rule['rule']}: {SHOWN[rule['state']]}{', ' * bool(rule['words'])}{rule['words']}" for rule in gate["rules"])
    return [f"{gate['state']} {against}", *said]


def enforce(gate: Mapping[str, Any] | None) -> None:
    """GateRefused, with the numbers, where a rule fired, was not measured, or is undecided and must not be."""
    if gate is not None and gate["state"] == REFUSED:
        raise GateRefused("\n  ".join(["the gate has " + lines(gate)[0], *lines(gate)[1:]]))


def gate_table(report: Mapping[str, Any]) -> Table | None:
    """The section Baseline; None where there is no gate."""
    gate = report["baseline"]
    if gate is None:
        return None
    head = ("refused if", "this run", "baseline", "ratio", f"{percent(report['metrics']['confidence'])} each end", "rule")
    rows = (
        Row(
            (one["rule"], *(number(one[key]) for key in ("now", "baseline", "ratio")), _ends(one), SHOWN[one["state"]]),
            "chosen" * (one["state"] in {"fired", "invalid"}),
        )
        for one in gate["rules"]
    )
    return Table(head, tuple(rows), frozenset({0, 5}))


def _judged(rule: Rule, now: Report, then: Report | None, differs: list[str]) -> dict[str, Any]:
    nothing = {"rule": str(rule), "now": None, "baseline": None, "ratio": None, "low": None, "high": None}
    if rule.relative and then is None:
        return nothing | {"state": "unjudged", "words": NONE_YET.format(model=now["model"])}
    if rule.relative and differs:
        return nothing | {"state": "undecided", "words": f"not compared, as {'; '.join(differs)}"}
    found = pair(rule.metric, now, then if rule.relative else None)
    if found.problem is not None:
        return nothing | {"state": "invalid" if found.is_invalid else "undecided", "words": found.problem}
    sure = now["metrics"]["confidence"]
    value, low, high = found.ratio(sure)
    state = state_of(rule, low, high)
    told = {
        "now": found.now["value"],
        "baseline": None if found.then is None else found.then["value"],
        "ratio": value if rule.relative else None,
        "low": low or None,
        "high": high if math.isfinite(high) else None,
        "state": state,
    }
    return nothing | told | {"words": _words(told, found, sure) + (_why(rule, found) if state == "undecided" else "")}


def state_of(rule: Rule, low: float, high: float) -> str:
    """Fired where the whole interval breaks the rule, held where none of it does, else undecided."""
    if rule.above:
        return "fired" if low > rule.number else "held" if high <= rule.number else "undecided"
    return "fired" if high < rule.number else "held" if low >= rule.number else "undecided"


def _words(told: Mapping[str, Any], found: Pair, sure: float) -> str:
    """`412 beside 280 is 1.47 × (1.31 to 1.65, each end with 99 % confidence)`."""
    lost = told["now"] is None
    shown = f"more than {number(found.now['at_least'])}" if lost else number(told["now"])
    times = "lost" if lost else f"{number(told['ratio'])} ×"
    beside = f" beside {number(told['baseline'])} is {times}" if found.then is not None else ""
    return f"{shown}{beside} ({_ends(told)}, each end with {percent(sure)} confidence)"


def _why(rule: Rule, found: Pair) -> str:
    """What kept a rule from being decided, beside the noise."""
    if found.noise is None:
        return f"; {NO_NOISE}"
    if rule.metric in {"rps", "gain"} and found.now["high"] is None:
        return "; no trial of it was too fast, so what it carries at most is not known"
    few = [one for one in (found.now, found.then) if one is not None and "se" in one and one["se"] is None]
    return f"; {few[0]['samples']} samples are too few" if few else ""


def _ends(one: Mapping[str, Any]) -> str:
    if one["now"] is None and one["low"] is None:
        return "–"
    return f"{number(one['low'] or 0.0)} to {'∞' if one['high'] is None else number(one['high'])}"
