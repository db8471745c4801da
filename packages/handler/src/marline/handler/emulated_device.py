"""An accelerator that sleeps: in place of the forward pass, for as long as a published service curve says.

Goes into every archive beside `base_handler.py`, and does nothing unless the server's environment names a curve.
"""

import fcntl
import json
import math
import os
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# a JSON file: points [[batch, ms], ...], jitter [[batch, p99 / mean], ...], stalls [share, times], time_scale, device
EMULATION = "MARLINE_EMULATION"
P99 = 2.3263  # standard deviations from the mean to the 99th percentile of a normal distribution


class EmulatedDevice:
    """Sleeps along a published service curve, one batch at a time per emulated device."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.points = [(float(batch), float(ms)) for batch, ms in settings["points"]]
        self.jitter = [(float(batch), float(ratio)) for batch, ratio in settings.get("jitter", ())]
        self.stalls = settings.get("stalls") or (0.0, 1.0)
        self.scale = float(settings["time_scale"])
        self.device = Path(settings["device"]).open("a")  # noqa: SIM115 - held for the worker's life: it is the lock

    @classmethod
    def read(cls) -> "EmulatedDevice | None":
        """The emulation our server asked for through the environment; an archive served elsewhere never emulates."""
        file = os.environ.get(EMULATION)
        return cls(json.loads(Path(file).read_text())) if file else None

    def spend(self, size: int) -> None:
        """Hold the device for t(size)."""
        fcntl.flock(self.device, fcntl.LOCK_EX)
        try:
            time.sleep(self.service_ms(size) * self.chance(size) * self.stall() * self.scale / 1e3)
        finally:
            fcntl.flock(self.device, fcntl.LOCK_UN)

    def chance(self, size: int) -> float:
        """A factor of mean 1, lognormal with the published ratio of p99 to mean at the nearest published size; 1 without one.

        For the deviation s of the logarithm that ratio is exp(P99 s - s^2 / 2).
        """
        if not self.jitter:
            return 1.0
        _, ratio = min(self.jitter, key=lambda one: abs(math.log(one[0] / size)))
        told = math.log(max(1.0, ratio))
        deviation = P99 - math.sqrt(max(0.0, P99**2 - 2 * told))
        return random.lognormvariate(-(deviation**2) / 2, deviation)

    def stall(self) -> float:
        """A factor: how many times as long a batch that stalls takes, and 1 for all others."""
        share, times = self.stalls
        return float(times) if share and random.random() < share else 1.0

    def service_ms(self, size: int) -> float:
        """t(size) between the two published points around it; proportional beyond the last."""
        if size >= self.points[-1][0]:
            return self.points[-1][1] * size / self.points[-1][0]
        for (low, low_ms), (high, high_ms) in zip(self.points, self.points[1:], strict=False):
            if low <= size <= high:
                return low_ms + (high_ms - low_ms) * (size - low) / (high - low)
        return self.points[0][1]
