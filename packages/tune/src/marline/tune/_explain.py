"""Why nothing better than the default was found, and which rates are only lower bounds, in sentences."""

import math
from collections.abc import Callable

from marline.tune._noise import Noise
from marline.tune._runner import Runner, told
from marline.tune._setting import Setting
from marline.tune._trial import Trial

KNOWN = 1.2  # times the confirmed rate: a limit predicted within that is known well enough


def lower_bound(runner: Runner, name: str, confirmed: Trial | None, limit_rps: Callable[[Setting], float] | None) -> list[str]:
    """A rate that neither a failing trial nor the twin bounds closely is a lower bound, and must be called one."""
    if confirmed is None or (limit_rps is not None and limit_rps(confirmed.setting) <= KNOWN * confirmed.offered_rps):
        return []
    higher = [one for one in runner.trials if one.setting == confirmed.setting and one.offered_rps > confirmed.offered_rps]
    if any(one.valid and not one.within(runner.bench.slo_ms) for one in higher):
        return []
    why = "trials at more were invalid" if any(not one.valid for one in higher) else "no higher rate was seen to miss it"
    return [f"{name} may carry more than {confirmed.offered_rps:.1f} req/s within the objective: {why}"]


def nothing_better(runner: Runner, usual: Trial | None, noise: Noise | None) -> str:
    """Why the default is kept; `usual` is its confirmation."""
    slo_ms, trials = runner.bench.slo_ms, runner.trials
    if not any(one.valid for one in trials):
        return f"nothing could be measured: every trial was invalid; {trials[-1].invalid_reason}. Is the machine busy?"
    limits = [one.limit for one in trials if one.valid and one.limit is not None]
    if usual is None and limits and not any(one.within(slo_ms) for one in trials):
        return f"no configuration kept every limit: {limits[-1]}"
    if usual is None and any(one.within(slo_ms) for one in trials):
        return f"no rate held within {slo_ms:g} ms in a longer trial; the machine may be busy, or tune.slo_ms too low"
    if usual is None:
        lowest = min(one.at_percentile_ms for one in trials if one.valid)
        name = f"p{runner.bench.tune.percentile:g}"
        seen = (
            f"the lowest {name} seen was {lowest:.0f} ms" if lowest < math.inf else f"requests beyond {name} were lost in each"
        )
        return f"no tried rate of any configuration was within {slo_ms:g} ms; {seen}. Raise tune.slo_ms"
    others = [one for one in trials if one.setting != usual.setting and one.within(slo_ms)]
    carried = f"TorchServe's default, {usual.offered_rps:.1f} req/s within {slo_ms:g} ms"
    if not others:
        return f"batching does not pay here: no other configuration carried as much as {carried}: the default is kept"
    best = max(others, key=lambda one: one.offered_rps)
    floor = f", beyond the noise of {noise.rps_floor:.0%}" if noise is not None else ""
    return (
        f"batching does not pay here: {told(best.setting)} carried {best.offered_rps:.1f} req/s in the search, and no longer "
        f"trial showed more than {carried}{floor}: the default is kept"
    )
