"""Watches a new version of a model beside the live one, on its samples, before anybody is sent to it."""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from marline.core import ServerError, StageError
from marline.deploy._client import Client
from marline.handler import difference

PAUSE_S = 0.1  # between pairs of requests: live users come first
SLOWER, FLOOR_MS = 2.0, 20.0  # what latency may be over the live one's, and over nothing
ENOUGH = 100  # requests: of fewer, p99 is the slowest one, which may be an accident, and the pairs are counted
LEAST = 7  # pairs that are asked in any case: not even all of fewer rule chance out
ACCIDENT = 0.01  # how likely so many slow pairs may be where either of the two is the slow one by chance
ATOL, RTOL = 1e-4, 1e-3  # answers that differ by less are the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """What was seen of (live, new): requests of each, errors, latencies in ms; and how many samples were answered otherwise.

    `slower` is in how many pairs of requests the new one took over twice the live one's time and 20 ms.
    """

    requests: int
    errors: tuple[int, int]
    p50_ms: tuple[float, float]
    p99_ms: tuple[float, float]
    slower: int
    differing: int
    samples: int


def watch(
    client: Client, model: str, versions: tuple[str, str], samples: Sequence[tuple[bytes, str]], seconds: float
) -> Canary:
    """Ask the live and the new version in turn, one request at a time, the one first as often as the other.

    StageError where the new one fails more often, or its p99 is over twice the live one's and 20 ms (with fewer than 100
    requests: in so many pairs of them that the sign test, 1 %, rules out chance; at least 7 are asked unless one fails);
    ServerError where the live one is silent. That the new one answers otherwise is told and refused by nobody: a model is
    trained anew to answer otherwise, and the golden pairs say what it must answer.
    """
    if not samples:
        raise StageError(f"{model}: there are no samples to watch a new version with; write deploy.canary_s=0")
    took: dict[str, list[float]] = {version: [] for version in versions}
    errors = dict.fromkeys(versions, 0)
    answers: dict[str, dict[int, bytes]] = {version: {} for version in versions}
    deadline, turn = time.monotonic() + seconds, 0
    while time.monotonic() < deadline or (turn < LEAST and not any(errors.values())):
        place = turn // 2 % len(samples)
        for version in versions if turn % 2 == 0 else versions[::-1]:
            began = time.monotonic()
            body = _answer(client, model, version, *samples[place], must=version == versions[0])
            took[version].append((time.monotonic() - began) * 1e3)
            errors[version] += body is None
            if body is not None:
                answers[version][place] = body
        turn += 1
        time.sleep(PAUSE_S)
    live, new = versions
    both = answers[live].keys() & answers[new].keys()
    seen = Canary(
        requests=turn,
        errors=(errors[live], errors[new]),
        p50_ms=(_percentile(took[live], 50), _percentile(took[new], 50)),
        p99_ms=(_percentile(took[live], 99), _percentile(took[new], 99)),
        slower=sum(new_ms > _limit_ms(live_ms) for live_ms, new_ms in zip(took[live], took[new], strict=True)),
        differing=sum(not _same(answers[live][place], answers[new][place]) for place in both),
        samples=len(both),
    )
    judge(model, new, seen)
    return seen


def judge(model: str, version: str, seen: Canary) -> None:
    """StageError where `version` is worse than the live one beyond chance."""
    if seen.errors[1] > seen.errors[0]:
        raise StageError(
            f"{model} {version} failed {seen.errors[1]} of {seen.requests} requests beside the live version, which failed "
            f"{seen.errors[0]}"
        )
    live_ms, new_ms = seen.p99_ms
    if seen.requests >= ENOUGH:
        if new_ms > (limit_ms := _limit_ms(live_ms)):
            raise StageError(
                f"{model} {version} is slow: p99 {new_ms:.1f} ms over {seen.requests} requests beside the live version's "
                f"{live_ms:.1f} ms (limit {limit_ms:.1f} ms)"
            )
    elif _by_chance(seen.slower, seen.requests) < ACCIDENT:
        raise StageError(
            f"{model} {version} is slow: over {SLOWER:g} times the live version's latency, and {FLOOR_MS:g} ms, in "
            f"{seen.slower} of {seen.requests} pairs of requests (p50 {seen.p50_ms[1]:.1f} ms beside {seen.p50_ms[0]:.1f} ms)"
        )


def _by_chance(count: int, pairs: int) -> float:
    """The binomial tail: at least `count` of so many pairs, where each is as likely to be one as not."""
    return sum(math.comb(pairs, more) for more in range(count, pairs + 1)) * 0.5**pairs


def _limit_ms(live_ms: float) -> float:
    return max(SLOWER * live_ms, FLOOR_MS)


def _answer(client: Client, model: str, version: str, body: bytes, content_type: str, *, must: bool) -> bytes | None:
    """The body of a 200; None for anything else, silence included where an answer is no must."""
    try:
        reply = client.predict(model, body, content_type, version=version)
    except ServerError:
        if must:
            raise
        return None
    return reply.body if reply.status == 200 else None


def _same(one: bytes, other: bytes) -> bool:
    try:
        return difference(json.loads(one), json.loads(other), atol=ATOL, rtol=RTOL) is None
    except ValueError:  # an answer need not be JSON
        return one == other


def _percentile(values_ms: Sequence[float], asked: int) -> float:
    return sorted(values_ms)[max(0, -(-asked * len(values_ms) // 100) - 1)]
