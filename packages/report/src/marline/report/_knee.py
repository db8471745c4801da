"""Where a configuration stops being good: its knee, its plateau, and the bracket of its limit."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from marline.report._raw import Seen

FLAT = 0.05  # more throughput than that is growth
STEP = 0.10  # of the load at least: a smaller step may bring less than 5 % and nothing is flat
FEWEST = 3  # loads, for a knee that is not simply one of two ends


def knee(seen: Sequence[Seen]) -> dict[str, Any]:
    """What the measured loads of one configuration, ascending, show; rates are those offered, requests/s.

    The knee is the load with the largest power X / R, throughput over mean latency (measurement.md, section 11, row 6;
    Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in computer communications", ICC 1979), None
    with fewer than three loads. It is one of the loads that were measured: `edge` says where it is the first or the last of
    them, so that the true one may be beyond. The plateau begins at the load after which, for a step of at least 10 % more load,
    throughput grows by less than 5 %. `held_rps` and `missed_rps` are the bracket of the limit, see `bracket`.
    """
    loads = [(float(one.trial["offered_rps"]), one.facts) for one in seen]
    flat = (
        (rate, after / rate - 1)
        for (rate, now), (after, then) in pairwise(loads)
        if after >= (1 + STEP) * rate and then["answered_rps"] < (1 + FLAT) * now["answered_rps"]
    )
    plateau, step = next(flat, (None, None))
    powers = [facts["power"] for _, facts in loads]
    place = powers.index(max(powers)) if len({rate for rate, _ in loads}) >= FEWEST and max(powers) > 0 else None
    edge = {0: "lowest", len(loads) - 1: "highest"}.get(place) if place is not None else None
    return {
        "loads": len(loads),
        "knee_rps": None if place is None else loads[place][0],
        "edge": edge,
        "plateau_rps": plateau,
        "plateau_step": None if step is None else round(step, 3),
        **bracket(seen),
    }


def bracket(seen: Sequence[Seen]) -> dict[str, float | None]:
    """Between which rates the limit lies: the highest that held the SLO and the lowest that did not; None where there is none.

    Where trials contradict each other, the later is believed, as tune does: what held at a rate that later did not counts no
    more, and the other way round.
    """
    held: set[float] = set()
    missed: set[float] = set()
    for one in sorted(seen, key=lambda one: int(one.facts["trial"])):
        rate = float(one.trial["offered_rps"])
        if one.facts["within"]:
            held, missed = held | {rate}, {other for other in missed if other > rate}
        else:
            held, missed = {other for other in held if other < rate}, missed | {rate}
    return {"held_rps": max(held, default=None), "missed_rps": min(missed, default=None)}
