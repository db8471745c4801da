"""The strategy `optuna`: a black-box search (tree-structured Parzen estimator) that knows nothing of batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marline.tune._search import Try
from marline.tune._setting import Setting
from marline.tune._trial import Trial

LEAST, MOST = 0.3, 1.0  # of the capacity: the rates that are suggested


def tpe(
    capacity_rps: Mapping[Setting, float],
    value: Callable[[Trial], float],
    at_rps: float | None,
    tests: int,
    run: Try,
    *,
    seed: int,
    in_time: Callable[[], bool],
) -> None:
    """At most `tests` trials of settings, and of rates where not `at_rps` is the one, that promise the largest `value`."""
    import optuna  # noqa: PLC0415 - takes a second, which every command would pay

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    settings = sorted(capacity_rps)
    for turn in range(tests):
        if turn and not in_time():
            break
        asked = study.ask()
        setting = _suggested(asked, settings)
        rate = at_rps or asked.suggest_float("share", LEAST, MOST) * capacity_rps[setting]
        trial = run(setting, rate)
        if trial.valid:
            study.tell(asked, value(trial))
        else:  # it says nothing about the server
            study.tell(asked, state=optuna.trial.TrialState.FAIL)


def _suggested(asked: Any, settings: Sequence[Setting]) -> Setting:
    """One of the settings; a batch of 1 has one delay only, so that none is asked for."""
    size = asked.suggest_categorical("batch_size", sorted({one.batch_size for one in settings}))
    workers = asked.suggest_categorical("workers", sorted({one.workers for one in settings}))
    delays = sorted({one.max_batch_delay_ms for one in settings if one.batch_size == size})
    delay = asked.suggest_categorical("max_batch_delay_ms", delays) if size > 1 else delays[0]
    return Setting(size, delay, workers)
