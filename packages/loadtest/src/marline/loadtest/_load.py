"""What is sent, where to, and when: the whole schedule is drawn before the first request."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from marline.loadtest._replay import recorded

BURSTINESS = 2.0  # the coefficient of variation of bursty gaps; of Poisson's it is 1, of constant ones 0
# Phases of each shape: name, share of the judged seconds, factor to `rps`. A sweep comes down as it went up: where a phase and
# its like differ, the server still works off what it was given before, or got hot (hysteresis).
SHAPES: dict[str, tuple[tuple[str, float, float], ...]] = {
    "steady": (("steady", 1.0, 1.0),),
    "step": tuple((f"{share:.0%}", 0.25, share) for share in (0.25, 0.5, 0.75, 1.0)),
    "sweep": (
        *((f"{share:.0%} up", 1 / 7, share) for share in (0.25, 0.5, 0.75)),
        ("100%", 1 / 7, 1.0),
        *((f"{share:.0%} down", 1 / 7, share) for share in (0.75, 0.5, 0.25)),
    ),
    "soak": tuple((f"part {part} of 10", 0.1, 1.0) for part in range(1, 11)),
    "spike": (("before", 0.4, 1.0), ("spike", 0.2, 3.0), ("after", 0.4, 1.0)),
}

Arrivals = Literal["poisson", "constant", "bursty", "replay"]
Shape = Literal["steady", "step", "sweep", "soak", "spike"]


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
    """A load: `warmup_s` that are not judged, then `seconds` that are.

    Open-loop at `rps` requests per second, times what `shape` says, unless there are `users`, who each wait for their answer.
    """

    rps: float
    seconds: float
    warmup_s: float
    arrivals: Arrivals
    seed: int
    timeout_s: float
    shape: Shape = "steady"
    replay: Path | None = None  # timestamps, for arrivals="replay"
    users: int = 0

    @property
    def end_s(self) -> float:
        """When the last of the judged seconds is over."""
        return self.warmup_s + self.seconds


@dataclass(frozen=True, slots=True)
class Phase:
    """Seconds of one rate, from `begin_s` on and before `end_s`."""

    name: str
    begin_s: float
    end_s: float
    rps: float


def phases(load: Load) -> list[Phase]:
    """The judged phases of a load; the warm-up is before them, at the rate of the first."""
    told, begin_s = [], load.warmup_s
    for name, share, factor in SHAPES[load.shape]:
        end_s = begin_s + share * load.seconds
        told.append(Phase(name, begin_s, end_s, factor * load.rps))
        begin_s = end_s
    return [*told[:-1], Phase(told[-1].name, told[-1].begin_s, load.end_s, told[-1].rps)]


def too_few_users(users: int, batch_size: int | None, workers: int | None) -> str | None:
    """Why so many users cannot show what these batches can do, and how many can; None where they may, or nothing is known."""
    if not users or batch_size is None or users >= batch_size * (workers or 1):
        return None
    enough = 2 * batch_size * ((workers or 1) + 1)
    whose = "" if (workers or 1) == 1 else f" for each of {workers} workers"
    return (
        f"{users} users never fill a batch of {batch_size}{whose}: no more requests than users ever wait, so batches wait out "
        f"their delay, and what is seen is the delay; {enough} users (2 x batch size x (workers + 1)) keep the workers full"
    )


def arrival_times(load: Load) -> NDArray[np.float64]:
    """When each request is due, in seconds from the start, ascending, all before `warmup_s + seconds`; the same for a seed.

    How many there are is fixed at the mean, in the warm-up and in each phase: equal rates offer equal loads, where a free count
    would vary by 15 % in 3 s at 14 requests/s. RequestError where a recording cannot be read.
    """
    if load.users:
        return np.empty(0)
    if load.arrivals == "replay":
        if load.replay is None:
            raise ValueError("arrivals='replay' needs a file of timestamps: replay=FILE")
        return recorded(load.replay, load.rps, load.end_s)
    judged, draw = phases(load), np.random.default_rng(load.seed)
    drawn = [_phase(load.arrivals, Phase("warm-up", 0.0, load.warmup_s, judged[0].rps), draw, 0)]
    return np.concatenate([*drawn, *(_phase(load.arrivals, phase, draw, 1) for phase in judged)])


def _phase(arrivals: Arrivals, phase: Phase, draw: np.random.Generator, least: int) -> NDArray[np.float64]:
    """Arrivals of one phase.

    Given how many there are, the arrivals of a Poisson process are uniform and independent (Kingman, Poisson Processes, 2.4);
    bursty ones have gaps of a gamma distribution, fitted to the phase.
    """
    seconds = phase.end_s - phase.begin_s
    if arrivals == "constant":
        return phase.begin_s + np.arange(max(least, math.floor(seconds * phase.rps + 1e-9))) / phase.rps
    count = max(least, round(phase.rps * seconds))
    if arrivals == "poisson":
        return np.sort(draw.uniform(phase.begin_s, phase.end_s, count))
    gaps = draw.gamma(BURSTINESS**-2, size=count + 1)
    shares: NDArray[np.float64] = np.minimum(np.cumsum(gaps)[:count] / gaps.sum(), 1 - 1e-12)
    return phase.begin_s + seconds * shares
