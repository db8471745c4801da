"""Which settings are tried, and at which rates, so that few trials say which is the best."""

from collections.abc import Callable, Sequence

from marline.tune._predict import BELOW, Forecaster
from marline.tune._setting import Setting
from marline.tune._trial import Trial

Try = Callable[[Setting, float], Trial]


def look_for_rate(forecast: Forecaster, run: Try, steps: int, in_time: Callable[[], bool]) -> None:
    """Try the most promising setting until its limit is known, then once the best of another kind.

    Which is the most promising follows what is seen. The first trial is made whatever the time, the last of `steps` only where
    the best has not held near its limit yet: a confirmation that misses needs one more, too. Where the twin says that nothing
    carries anything, it is not believed before lower rates of what was tried have missed the objective, too.
    """
    for turn in range(steps):
        ranked = forecast.by_rate()
        lower = None if ranked else forecast.lower()
        if (not ranked and lower is None) or (turn and not in_time()):
            return
        if lower is not None:
            run(*lower)
            continue
        setting = ranked[0]
        if 0 < turn == steps - 1 and forecast.is_confirmable(setting):
            return
        rate = forecast.next_rate(setting)
        if rate is None:
            rival = rival_of(ranked)
            if rival is None or rival in forecast.bounds:
                return
            setting, rate = rival, BELOW * forecast.limit_rps(rival)
        run(setting, rate)


def look_at_rate(
    forecast: Forecaster, rps: float, *, cheapest: bool, run: Try, steps: int, in_time: Callable[[], bool]
) -> None:
    """Try the best setting at one rate until the one that is best has been tried, then the best of another kind; see above.

    Where the twin says that none holds it, the one that comes nearest is tried once.
    """
    for turn in range(steps):
        ranked = forecast.by_latency(rps, cheapest=cheapest)
        if not ranked and turn == 0 and forecast.settings:
            run(forecast.nearest(rps), rps)
            continue
        untried = [one for one in ranked if (one, rps) not in forecast.measured_ms]
        if not untried or (turn and not in_time()):
            return
        rival = rival_of(ranked)
        if ranked[0] in untried:
            run(ranked[0], rps)
        elif rival in untried:
            run(rival, rps)
        else:
            return


def rival_of(ranked: Sequence[Setting]) -> Setting | None:
    """The best that differs from the first in more than the delay, which hardly ever decides."""
    first = ranked[0]
    return next((one for one in ranked if one.kind != first.kind), None)
