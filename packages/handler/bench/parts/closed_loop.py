"""How many requests a server answers in a second while a number of users each wait for their answer and send again."""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marline.core import LoadTestError, MarlineError
from marline.deploy import Server
from marline.loadtest import Load, Target, measure
from packages.handler.bench.parts.figure import Compared, turns

TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How long each contender is measured at a time, after how much warming up, how often, and by how many users."""

    warm_s: float = 1.5
    seconds: float = 5.0
    passes: int = 4
    users: int = 24


def target(server: Server, model: str) -> Target:
    """Where a server of ours answers for a model."""
    return Target(url=f"{server.client.inference_url}/predictions/{model}", token=server.client.tokens.inference)


def answers_per_s(to: Target, payloads: Sequence[Path], pace: Pace) -> float:
    """200s a second once warm; LoadTestError where there was any other answer."""
    load = Load(
        rps=0.0,
        seconds=pace.seconds,
        warmup_s=pace.warm_s,
        arrivals="constant",
        seed=0,
        timeout_s=TIMEOUT_S,
        users=pace.users,
    )
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as folder:
        measure(to, payloads, load, Path(folder))
        told = json.loads(Path(folder, "samples.json").read_text())
    return rate({"began_s": 0.0, "rows": list(zip(told["finished_s"], told["error"], strict=True))}, pace)


def rate(told: Mapping[str, Any], pace: Pace) -> float:
    """From the last answer of the warm-up to the last of the judged seconds, as answers come in batches."""
    errors = Counter(error for _, error in told["rows"] if error)
    if errors:
        raise LoadTestError(f"of {len(told['rows'])} answers some were none: {dict(errors)}")
    begin = told["began_s"] + pace.warm_s
    finished = sorted(instant for instant, _ in told["rows"])
    since = max((one for one in finished if one <= begin), default=begin)
    judged = [one for one in finished if begin < one <= begin + pace.seconds]
    if not judged:
        raise LoadTestError(f"there was no answer in {pace.seconds:g} s")
    return len(judged) / float(judged[-1] - since)


def compare(contenders: Mapping[str, Callable[[], float]], passes: int) -> Compared:
    """Each contender's rates, measured in turn; one that fails is out, and says why."""
    found = Compared({name: [] for name in contenders})
    for name in turns(list(contenders), passes):
        if name in found.problems:
            continue
        try:
            found.rates[name].append(contenders[name]())
        except MarlineError as error:
            found.problems[name] = str(error)
            del found.rates[name]
        else:
            print(f"  {name}: {found.rates[name][-1]:.1f}/s", flush=True)
    return found
