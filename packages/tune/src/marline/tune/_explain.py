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
    if not any(one.valid for one in runner.trials):
        return f"nothing could be measured: every trial was invalid; {runner.trials[-1].invalid_reason}. Is the machine busy?"
    return _nothing_held(runner) if usual is None else _not_better(runner, usual, noise)


def _nothing_held(runner: Runner) -> str:
    """Why not even the default has a rate."""
    slo_ms, trials, tune = runner.bench.slo_ms, runner.trials, runner.bench.tune
    if tune.objective != "rate":
        wanted = f"within {slo_ms:g} ms at {tune.at_rps:g} req/s"
        return f"no configuration was confirmed {wanted}; lower tune.at_rps or raise tune.slo_ms"
    if any(one.within(slo_ms) for one in trials):
        return f"no rate held within {slo_ms:g} ms in a longer trial; the machine may be busy, or tune.slo_ms too low"
    limits = [one.limit for one in trials if one.valid and one.limit is not None]
    if limits:
        return f"no configuration kept every limit: {limits[-1]}"
    lowest = min(one.at_percentile_ms for one in trials if one.valid)
    name = f"p{tune.percentile:g}"
    seen = f"the lowest {name} seen was {lowest:.0f} ms" if lowest < math.inf else f"requests beyond {name} were lost in each"
    return f"no tried rate of any configuration was within {slo_ms:g} ms; {seen}. Raise tune.slo_ms"


def _not_better(runner: Runner, usual: Trial, noise: Noise | None) -> str:
    """Why nothing is recommended in place of the default, which holds a rate."""
    slo_ms, tune = runner.bench.slo_ms, runner.bench.tune
    if tune.objective != "rate":
        return f"nothing was confirmed to be better than TorchServe's default at {tune.at_rps:g} req/s: the default is kept"
    others = [one for one in runner.trials if one.setting != usual.setting]
    carried = f"TorchServe's default, {usual.offered_rps:.1f} req/s within {slo_ms:g} ms"
    within = [one for one in others if one.within(slo_ms)]
    if not within:
        return f"batching does not pay here: no other configuration carried as much as {carried}: the default is kept"
    best = max(within, key=lambda one: one.offered_rps)
    seen = f"{told(best.setting)} carried {best.offered_rps:.1f} req/s in the search, and"
    longer = [one for one in others if one.purpose == "confirm"]
    if longer and not any(one.valid for one in longer):
        why = f"every longer trial was invalid, the last because {longer[-1].invalid_reason}"
        return f"{seen} could not be confirmed: {why}. {carried}, is kept"
    floor = f", beyond the noise of {noise.rps_floor:.0%}" if noise is not None else ""
    return f"batching does not pay here: {seen} no longer trial showed more than {carried}{floor}: the default is kept"
