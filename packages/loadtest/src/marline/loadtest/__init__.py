"""Send load with locust, keep every raw sample, and say what it proves. Knows HTTP; knows neither TorchServe nor tuning."""

from marline.loadtest._load import Load, Phase, Target, arrival_times, phases
from marline.loadtest._lock import measuring, wait_until_quiet
from marline.loadtest._measure import browse, measure
from marline.loadtest._measurement import Measurement, read_measurement, read_phases
from marline.loadtest._validity import growing, invalid_reason
from marline.loadtest._verdict import Verdict, early_verdict, percentile, samples_needed, slo_met, verdict

__all__ = [
    "Load",
    "Measurement",
    "Phase",
    "Target",
    "Verdict",
    "arrival_times",
    "browse",
    "early_verdict",
    "growing",
    "invalid_reason",
    "measure",
    "measuring",
    "percentile",
    "phases",
    "read_measurement",
    "read_phases",
    "samples_needed",
    "slo_met",
    "verdict",
    "wait_until_quiet",
]
