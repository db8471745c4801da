"""Stage 6: the batch size and delay that carry the most load within the objective, found and confirmed by real trials."""

from marline.tune._curve import Point, service_curve
from marline.tune._search import capacity_rps, climb, grid, search
from marline.tune._setting import Setting
from marline.tune._trial import Trial
from marline.tune._tune import tune

__all__ = ["Point", "Setting", "Trial", "capacity_rps", "climb", "grid", "search", "service_curve", "tune"]
