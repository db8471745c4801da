"""Stage 6: the batch size and delay that carry the most load within the objective, found and confirmed by real trials."""

from marline.tune._baseline import Baseline
from marline.tune._curve import measure_service
from marline.tune._refit import Seen, refit
from marline.tune._search import capacity_rps, climb, grid, search
from marline.tune._service import Point, Service
from marline.tune._setting import Setting
from marline.tune._trial import Trial
from marline.tune._tune import tune
from marline.tune._twin import Forecast, Prediction, at_rate, predict, simulate

__all__ = [
    "Baseline",
    "Forecast",
    "Point",
    "Prediction",
    "Seen",
    "Service",
    "Setting",
    "Trial",
    "at_rate",
    "capacity_rps",
    "climb",
    "grid",
    "measure_service",
    "predict",
    "refit",
    "search",
    "simulate",
    "tune",
]
