"""What result.json says of the trials and of the twin."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from marline.tune._batches import Batch
from marline.tune._choose import Choice
from marline.tune._diagnosis import Diagnosis, Figures, diagnose
from marline.tune._outlook import outlook
from marline.tune._predict import Forecaster
from marline.tune._runner import Runner
from marline.tune._setting import Setting
from marline.tune._trial import Trial


def found(choice: Choice, runner: Runner, forecast: Forecaster) -> dict[str, Any]:
    """The keys of result.json that follow from the choice, the trials and the twin."""
    trials = runner.trials
    paired = len(choice.noise.trials) if choice.noise is not None else 0
    return {
        "curve": [asdict(point) for point in forecast.measured.points],
        "default": choice.default,
        "chosen": choice.chosen,
        "runner_up": choice.runner_up,
        "gain": choice.gain,
        "noise": choice.noise.as_json() if choice.noise is not None else None,
        "predictions": forecast.predictions(),
        "compared": forecast.compared,
        "overheads": {name: round(getattr(forecast.service, name), 3) for name in ("batch_ms", "request_ms", "http_ms")},
        "service": asdict(forecast.service),  # what the twin ended with: the curve as long as batches took in the trials
        "diagnoses": [asdict(one) | asdict(_diagnosis(one, forecast, trials)) for one in forecast.told],
        "outlook": outlook(forecast, choice.setting, choice.chosen["rps"]),
        "trials": [
            trial.as_json() | {"stages_ms": _stages_ms(raw.batches)} for trial, raw in zip(trials, runner.raw, strict=True)
        ],
        "load_tests": len(trials) - paired,  # beside the A/A pair
        "load_seconds": round(sum(trial.load_s for trial in trials), 1),
    }


def watched(runner: Runner) -> list[dict[str, Any]]:
    """What the GPUs did in each trial."""
    return [seen for raw in runner.raw for seen in raw.gpu]


def _stages_ms(batches: Sequence[Batch]) -> dict[str, float] | None:
    """What a mean request spends in the worker by stage, of all batches of a trial; None where they are not reported."""
    count = sum(batch.size for batch in batches)
    if not count:
        return None
    names = ("pre_ms", "inference_ms", "post_ms")
    return {name: round(sum(batch.size * getattr(batch, name) for batch in batches) / count, 3) for name in names}


def _diagnosis(setting: Setting, forecast: Forecaster, trials: Sequence[Trial]) -> Diagnosis:
    """What bounds a setting: at the highest rate that held, else the lowest that did not, else the limit that is predicted."""
    service, told = forecast.service, forecast.told[setting]
    ours = [one for one in trials if one.setting == setting]
    held, missed = ([one for one in ours if one.valid and one.within(forecast.slo_ms) == wanted] for wanted in (True, False))
    if held or missed:
        trial = max(held, key=_rate) if held else min(missed, key=_rate)
        refused = sum(count for name, count in trial.error_classes.items() if name.endswith("overload"))
        seen = Figures(
            rps=trial.offered_rps,
            tail_ms=trial.at_percentile_ms,
            mean_batch=trial.mean_batch,
            samples=trial.samples,
            refused=refused,
        )
    else:
        late = ours[-1].invalid_reason if ours else None
        seen = Figures(rps=told.rps, tail_ms=told.tail_ms, mean_batch=told.mean_batch, late=late)
    return diagnose(
        service.points,
        setting,
        seen,
        forecast.slo_ms,
        batch_ms=service.batch_ms,
        request_ms=service.request_ms,
        shared=service.shared,
    )


def _rate(trial: Trial) -> float:
    return trial.offered_rps
