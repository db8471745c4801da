"""What is sent, where to, and when: the whole schedule is drawn before the first request."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address that answers predictions (plain HTTP), and the token it wants, if any.

    `token_file` holds the token as it is now, as {"token": ...}, where it is renewed while load is sent.
    """

    url: str
    token: str | None
    token_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """An open-loop load: `warmup_s` that are not judged, then `seconds` that are, at `rps` requests per second throughout."""

    rps: float
    seconds: float
    warmup_s: float
    arrivals: Literal["poisson", "constant"]
    seed: int
    timeout_s: float


def arrival_times(load: Load) -> NDArray[np.float64]:
    """When each request is due, in seconds from the start, ascending, all before `warmup_s + seconds`; the same for a seed.

    Given how many there are, the arrivals of a Poisson process are uniform and independent (Kingman, Poisson Processes, 2.4).
    How many there are is fixed at the mean, in the warm-up and in the judged seconds each: equal rates offer equal loads, where
    a free count would vary by 15 % in 3 s at 14 requests/s.
    """
    total_s = load.warmup_s + load.seconds
    if load.arrivals == "constant":
        return np.arange(math.floor(total_s * load.rps)) / load.rps
    draw = np.random.default_rng(load.seed)
    warm_up = draw.uniform(0.0, load.warmup_s, round(load.rps * load.warmup_s))
    judged = draw.uniform(load.warmup_s, total_s, max(1, round(load.rps * load.seconds)))
    return np.sort(np.concatenate([warm_up, judged]))
