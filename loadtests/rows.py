"""One row for each request: when it was due, sent and over, and what came back. Knows no HTTP and no locust."""

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COLUMNS = ("payload", "scheduled_s", "sent_s", "finished_s", "status", "error", "bytes", "answer")


@dataclass(slots=True)
class Rows:
    """What happened to each request, in the order they were due, and to the sender meanwhile; instants in seconds."""

    payloads: int
    answers: bool = False  # whether to keep what was answered
    first: int = 0  # of all processes' requests ours are number `first`, `first + step`, ...: each has its payload so
    step: int = 1
    payload: list[int] = field(default_factory=list)
    scheduled_s: list[float] = field(default_factory=list)
    sent_s: list[Any] = field(default_factory=list)
    finished_s: list[Any] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    error: list[str] = field(default_factory=list)
    bytes: list[int] = field(default_factory=list)
    answer: list[str] = field(default_factory=list)
    # instant, requests in flight, their integral over time (request-seconds), CPU seconds of this process
    samples: list[tuple[float, int, float, float]] = field(default_factory=list)
    resent: int = 0  # requests whose token had been renewed meanwhile
    _in_flight: int = 0
    _request_s: float = 0.0
    _changed_s: float = 0.0

    def add(self, due_s: float) -> int:
        """One more request is planned; its number here."""
        index = len(self.scheduled_s)
        fresh = ((self.first + index * self.step) % self.payloads, due_s, None, None, 0, "Unsent", 0, "")
        for name, value in zip(COLUMNS, fresh, strict=True):
            getattr(self, name).append(value)
        return index

    def begin(self, index: int, now_s: float) -> None:
        """A request is due and taken up; its time in flight began when it was due."""
        self._change(now_s, 1)
        self._request_s += now_s - self.scheduled_s[index]
        self.sent_s[index], self.error[index] = now_s, "Unfinished"

    def end(self, index: int, now_s: float, status: int, error: str, body: Any) -> None:
        """A request is over, answered or not."""
        self._change(now_s, -1)
        self.finished_s[index], self.status[index], self.error[index] = now_s, status, error
        self.bytes[index] = len(body)
        if self.answers:
            self.answer[index] = body.decode(errors="replace")

    def sample(self, now_s: float) -> None:
        """Note how much is in flight and how much CPU time this process has used."""
        self._change(now_s, 0)
        self.samples.append((now_s, self._in_flight, self._request_s, time.process_time()))

    def told(self) -> dict[str, Any]:
        """Everything, as another process can be told."""
        return {name: getattr(self, name) for name in (*COLUMNS, "samples", "resent")}

    def _change(self, now_s: float, by: int) -> None:
        self._request_s += self._in_flight * (now_s - self._changed_s)
        self._changed_s = now_s
        self._in_flight += by


def write(parts: Iterable[dict[str, Any] | None], plan: dict[str, Any]) -> None:
    """Write the rows of all processes in the order they were due, whole or not at all; of one that is missing, unsent ones.

    `samples` has a list for each process.
    """
    told = list(parts)
    schedule, step = plan["schedule"], len(told)
    for number, part in enumerate(told):
        if part is None:
            unsent = Rows(len(plan["payloads"]), first=number, step=step)
            for due_s in schedule[number::step]:
                unsent.add(due_s)
            told[number] = unsent.told() | {"samples": []}
    rows = [row for part in told if part for row in zip(*(part[name] for name in COLUMNS), strict=True)]
    rows.sort(key=lambda row: row[1])
    columns = {name: [row[position] for row in rows] for position, name in enumerate(COLUMNS)}
    beside = {
        "schema": 2,
        "senders": step,
        "missing": sum(not part["samples"] for part in told if part),
        "resent": sum(part["resent"] for part in told if part),
        "samples": [part["samples"] for part in told if part and part["samples"]],
    }
    out = Path(plan["out"])
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(json.dumps(beside | columns))
    partial.replace(out)
