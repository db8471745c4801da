"""Every bad input alone and as item 3 of a batch of eight: its own status in time, right neighbours, the worker as before."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from marline.core import StageError, read_config
from marline.deploy import Server, prove, serving
from marline.handler import difference, read_golden
from marline.tune._batches import Batch, read_batches
from packages.handler.bench.parts.archives import life, photos
from packages.handler.bench.parts.corpus import TEXT, Case, cases
from packages.handler.bench.parts.exchange import Answer, Request, ask, ask_together
from packages.handler.bench.parts.figure import figure
from packages.handler.bench.parts.small import sums, text

BATCH, DELAY_MS, PLACE = 8, 200, 2
LIMIT_S, GROWTH_MB, SETTLE_S, TRIES = 0.2, 50, 3.0, 3
ROUNDS, STILL_MB = 20, 1.0
MAX_REQUEST_MB = 6  # below B02
NONE: Mapping[str, str] = {}


@dataclass
class Bench:
    """The server, what is right for it, and what its workers were like before anything bad was sent."""

    server: Server
    good: dict[str, list[Request]]
    right: dict[str, list[Any]] = field(default_factory=dict)
    alone_s: dict[str, float] = field(default_factory=dict)  # the slowest good request of each model
    batch_s: dict[str, float] = field(default_factory=dict)  # eight good requests, from the last one's start
    pids: dict[str, int] = field(default_factory=dict)
    rss_mb: dict[str, float] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.server.client.inference_url


def bad_inputs(only: str | None = None) -> list[dict[str, Any]]:
    """How many rows of the corpus hold, and which do not and why."""
    made = life("mobilenet_v3_large")
    told = read_config(["model=mobilenet_v3_large", f"deploy.max_request_mb={MAX_REQUEST_MB}"]).config.deploy
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as folder, serving(told, Path(folder, "logs")) as server:
        sent = [photo.read_bytes() for photo in photos(made.loaded, Path(folder))]
        archives = {"image": made.archive, "text": text(Path(folder)), "sums": sums(Path(folder))}
        for model, archive in archives.items():
            server.load(archive, model, batch_size=BATCH, max_batch_delay_ms=DELAY_MS, workers=1)
        golden = read_golden(made.exported.path("golden.json"))
        prove(server.client, "image", golden, atol=made.exported.facts["atol"], rtol=made.exported.facts["rtol"])
        bench = _settled(server, sent)
        problems: dict[str, list[str]] = {}
        corpus = [case for case in cases(sent[0]) if only in {None, case.row}]
        for case in corpus:
            problems.setdefault(case.row, []).extend(_problems(bench, case))
    failing = {row: list(dict.fromkeys(said)) for row, said in problems.items() if said}
    for row, said in failing.items():
        print(*(f"  {row}: {one}" for one in said), sep="\n", flush=True)
    return [_row(problems, failing, len(corpus))]


def _row(problems: dict[str, list[str]], failing: dict[str, list[str]], count: int) -> dict[str, Any]:
    passed = len(problems) - len(failing)
    how = (
        f"{count} bodies, each alone and in a batch of {BATCH}; in time is {LIMIT_S * 1e3:g} ms beyond what good requests take "
        f"the same way, D={DELAY_MS} ms included, best of {TRIES}"
    )
    said = "; ".join(f"{row}: {each[0]}{f' and {len(each) - 1} more' if each[1:] else ''}" for row, each in failing.items())
    name = "bad inputs B01 to B23, rows that hold"
    return figure(name, passed, "rows", len(problems), not failing, count, f"{how}{said and '. Do not hold: ' + said}")


def _settled(server: Server, sent: Sequence[bytes]) -> Bench:
    """The bench once its models have seen every kind of good batch; what they answer alone is what is right."""
    words = ["rope", "two ends", "one thin line that binds", "a rope and " * 300]
    bodies = {
        "image": [(body, "image/jpeg") for body in sent],
        "text": [(word.encode(), TEXT) for word in words],
        "sums": [(json.dumps([place, 2, 3, 4]).encode(), "application/json") for place in range(4)],
    }
    bench = Bench(server, {model: [_request(server, model, *one) for one in pairs] for model, pairs in bodies.items()})
    for model, good in bench.good.items():
        alone = [[_timed(bench, one) for one in good] for _ in range(3)]
        bench.right[model] = [json.loads(answer.body) for answer, _ in alone[0]]
        bench.alone_s[model] = max(median(times) for times in zip(*([s for _, s in turn] for turn in alone), strict=True))
        _settle(bench, model)
        batches = [ask_together(bench.url, [good[index % len(good)] for index in range(BATCH)]) for _ in range(5)]
        bench.batch_s[model] = median(_since_last(answers) for answers in batches)
        _remember(bench, model)
    return bench


def _settle(bench: Bench, model: str) -> None:
    """Send good batches until the worker's memory grows no more; those of seven too, which a bad one leaves of eight."""
    good, seen = bench.good[model], 0.0
    for _ in range(ROUNDS):
        for size in (BATCH, BATCH - 1, BATCH, BATCH - 1):
            ask_together(bench.url, [good[index % len(good)] for index in range(size)])
        _remember(bench, model)
        if bench.rss_mb[model] < seen + STILL_MB:
            return
        seen = max(seen, bench.rss_mb[model])


def _problems(bench: Bench, case: Case) -> list[str]:
    request = _request(bench.server, case.model, case.body, case.kind, case.path, case.headers)
    alone, alone_said = _alone(bench, case, request)
    together, batch_said = _in_batch(bench, case, request)
    said = [*alone_said, *batch_said]
    if alone.status != together.status:
        said.append(f"{alone.status} alone and {together.status} in a batch")
    elif alone.status == 200:
        found = difference(json.loads(alone.body), json.loads(together.body), atol=1e-4, rtol=1e-3)
        said += [f"in a batch: {found}"] * (found is not None)
    return [f"{one} ({_short(case)})" for one in [*said, *_worker(bench, case.model)]]


def _alone(bench: Bench, case: Case, request: Request) -> tuple[Answer, list[str]]:
    seconds, said = [], []
    for _ in range(TRIES):
        answer, spent_s = _timed(bench, request)
        seconds.append(spent_s)
        said += _wrong(case, answer)
        late = min(seconds) - _allowed(case, answer, bench.alone_s[case.model])
        if said or late <= 0:
            break
    return answer, [*said, *[f"{late * 1e3:.0f} ms late alone"] * (late > 0)]


def _in_batch(bench: Bench, case: Case, request: Request) -> tuple[Answer, list[str]]:
    good = bench.good[case.model]
    places = [index % len(good) for index in range(BATCH)]
    requests = [good[place] for place in places]
    requests[PLACE] = request
    seconds, said = [], []
    for _ in range(TRIES):
        before = len(read_batches(bench.server.batches))
        answers = ask_together(bench.url, requests)
        answer = answers[PLACE]
        said += _wrong(case, answer)
        for index, place in enumerate(places):
            if index != PLACE and not _right(answers[index], bench.right[case.model][place]):
                said.append(f"neighbour {index + 1} got {answers[index].status} {answers[index].body[:80]!r}")
        said += _formed(read_batches(bench.server.batches)[before:], answers, _refused_before(case, answer))
        seconds.append(_since_last(answers))
        late = min(seconds) - _allowed(case, answer, bench.batch_s[case.model])
        if said or late <= 0:
            break
    return answer, [*said, *[f"{late * 1e3:.0f} ms late in a batch"] * (late > 0)]


def _formed(batches: Sequence[Batch], answers: Sequence[Answer], refused_before: bool) -> list[str]:
    """Whether the log shows one batch, which did not wait for anybody: all eight were in it. Bad ones may not be counted."""
    if len(batches) != 1 or batches[0].size < BATCH - 1:
        return [f"the log shows batches of {[batch.size for batch in batches]}"]
    waited_s = batches[0].ended_s - batches[0].total_ms / 1e3 - answers[0].sent_s
    if not refused_before and waited_s > 0.9 * DELAY_MS / 1e3:
        return [f"the batch waited {waited_s * 1e3:.0f} ms for an eighth"]
    return []


def _wrong(case: Case, answer: Answer) -> list[str]:
    if answer.status not in case.expected:
        wanted = " or ".join(map(str, case.expected))
        return [f"{answer.status or 'no answer'} for {wanted}"]
    if case.says.encode() not in answer.body:
        return [f"{answer.body[:80]!r} does not say {case.says}"]
    return []


def _right(answer: Answer, expected: Any) -> bool:
    return answer.status == 200 and difference(expected, json.loads(answer.body), atol=1e-4, rtol=1e-3) is None


def _worker(bench: Bench, model: str) -> list[str]:
    """Whether the worker is the same, READY, and has given back what it took; a new one is what later cases are held to."""
    status = bench.server.client.describe(model)
    assert status is not None
    pid, state = status.workers[0]
    if pid == bench.pids[model] and state == "READY":
        deadline = time.monotonic() + SETTLE_S
        while (grown := _rss_mb(pid) - bench.rss_mb[model]) > GROWTH_MB and time.monotonic() < deadline:
            time.sleep(0.1)
        if grown <= GROWTH_MB:
            return []
        _remember(bench, model)  # later cases answer for what they add
        return [f"the worker keeps {grown:.0f} MB"]
    deadline = time.monotonic() + bench.server.ready_s
    while status is None or status.ready < 1:
        if time.monotonic() > deadline:
            raise StageError(f"the worker of {model} did not come back")
        time.sleep(0.2)
        status = bench.server.client.describe(model)
    _remember(bench, model)
    return [f"the worker was {state}" if pid == bench.pids[model] else "the worker was replaced"]


def _remember(bench: Bench, model: str) -> None:
    status = bench.server.client.describe(model)
    assert status is not None
    bench.pids[model] = status.workers[0][0]
    bench.rss_mb[model] = _rss_mb(bench.pids[model])


def _rss_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 2**20


def _allowed(case: Case, answer: Answer, good_s: float) -> float:
    return LIMIT_S + (0.0 if _refused_before(case, answer) else good_s)


def _refused_before(case: Case, answer: Answer) -> bool:
    """Whether TorchServe itself refused it, so that it was in no batch."""
    return case.path is not None or answer.status == 413


def _timed(bench: Bench, request: Request) -> tuple[Answer, float]:
    answer = ask(bench.url, request)
    return answer, answer.finished_s - answer.sent_s


def _since_last(answers: Sequence[Answer]) -> float:
    """Seconds until item 3 was answered, from when all eight were on their way."""
    return answers[PLACE].finished_s - max(answer.sent_s for answer in answers)


def _request(
    server: Server, model: str, body: bytes, kind: str | None, path: str | None = None, headers: Mapping[str, str] = NONE
) -> Request:
    told = {"Authorization": f"Bearer {server.client.tokens.inference}", **headers}
    return Request(path or f"/predictions/{model}", body, told if kind is None else {**told, "Content-Type": kind})


def _short(case: Case) -> str:
    said = case.path or f"{case.kind} of {len(case.body)} bytes {case.body[:16]!r}"
    return f"{case.model}, {said[:80]}"
