"""Open-loop load by locust beside something else, and what was answered to every request."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marline.core import LoadTestError, MarlineError
from marline.deploy import Server
from marline.loadtest import Load, Target, measure, percentile
from packages.deploy.bench.parts.versions import APART

RPS, TIMEOUT_S = 30.0, 10.0


@dataclass(slots=True)
class Answers:
    """Rows of one load, in the order they were answered: status 200 and whose answer, or what went wrong."""

    sent: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    by: list[int] = field(default_factory=list)  # which version answered, one after the other
    p99_ms: float = 0.0
    worst_ms: float = 0.0
    resent: int = 0
    over: bool = False  # whether the load had ended before what ran beside it

    @property
    def switches(self) -> int:
        """How often the version changed from one answer to the next."""
        return sum(one != other for one, other in zip(self.by, self.by[1:], strict=False))

    def told(self) -> str:
        """For the note of a figure."""
        wrong = ", ".join(f"{count} x {what}" for what, count in self.problems.items()) or "none failed or wrong"
        counts = ", ".join(f"{count} by version {1 + version}" for version, count in sorted(Counter(self.by).items()))
        return f"{self.sent} requests at {RPS:g}/s: {wrong}; {counts}; p99 {self.p99_ms:.0f} ms, worst {self.worst_ms:.0f} ms"


def under_load(
    server: Server, model: str, samples: list[Path], digits: list[int], seconds: float, out: Path, beside: Callable[[], None]
) -> Answers:
    """Send load for so long while `beside` runs; raises what that raises, and LoadTestError where locust fails."""
    target = Target(
        url=f"{server.client.inference_url}/predictions/{model}",
        token=server.client.tokens.inference,
        token_file=server.token_file,
    )
    load = Load(rps=RPS, seconds=seconds, warmup_s=0, arrivals="poisson", seed=0, timeout_s=TIMEOUT_S)
    measured: list[Any] = []

    def send() -> None:
        try:
            measured.append(measure(target, samples, load, out, answers=True))
        except MarlineError as error:
            measured.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        beside()
        over = not sender.is_alive()
    finally:
        sender.join()
    if isinstance(measured[0], MarlineError):
        raise LoadTestError(str(measured[0]))
    told = json.loads((out / "samples.json").read_text())
    answers = Answers(sent=len(told["status"]), resent=told["resent"], over=over)
    answers.p99_ms, answers.worst_ms = (percentile(measured[0].latencies_ms, share) for share in (99, 100))
    for _, index in sorted((instant or 0, index) for index, instant in enumerate(told["finished_s"])):
        _judge(answers, told, index, digits)
    return answers


def _judge(answers: Answers, told: dict[str, Any], index: int, digits: list[int]) -> None:
    if told["status"][index] != 200:
        answers.problems[told["error"][index]] += 1
        return
    digit = json.loads(told["answer"][index])["output"]["digit"]
    version, said = divmod(digit, APART)
    if said != digits[told["payload"][index]] or version not in {0, 1}:
        answers.problems[f"answer {digit} for {digits[told['payload'][index]]}"] += 1
        return
    answers.by.append(version)
