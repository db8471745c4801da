"""Send load with locust, keep every raw sample, and say what it proves. Knows HTTP; knows neither TorchServe nor tuning."""

from marline.loadtest._load import Load, Target, arrival_times
from marline.loadtest._lock import measuring, wait_until_quiet
from marline.loadtest._measure import browse, measure
from marline.loadtest._measurement import Measurement, read_measurement
from marline.loadtest._validity import invalid_reason
from marline.loadtest._verdict import percentile, slo_met

__all__ = [
    "Load",
    "Measurement",
    "Target",
    "arrival_times",
    "browse",
    "invalid_reason",
    "measure",
    "measuring",
    "percentile",
    "read_measurement",
    "slo_met",
    "wait_until_quiet",
]
