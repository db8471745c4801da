"""Notices workers that die again and again, which TorchServe's /ping calls Healthy."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from marline.deploy._client import Status

MOST, WITHIN_S = 3, 60.0


@dataclass(slots=True)
class Restarts:
    """How often each worker was started anew, from descriptions of its model made every second or so.

    A worker keeps its id, and has another process each time it is started.
    """

    processes: dict[tuple[str, str, str], int] = field(default_factory=dict)
    instants: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)

    def looping(self, model: str, versions: Sequence[Status], now_s: float) -> list[str]:
        """The versions of which a worker was started anew at least three times in the last 60 s."""
        found = []
        for status in versions:
            for worker, (pid, _) in zip(status.worker_ids, status.workers, strict=True):
                key = (model, status.version, worker)
                if pid > 0 and pid != self.processes.setdefault(key, pid):
                    self.processes[key] = pid
                    self.instants.setdefault(key, []).append(now_s)
                self.instants[key] = [one for one in self.instants.get(key, []) if one > now_s - WITHIN_S]
                if len(self.instants[key]) >= MOST and status.version not in found:
                    found.append(status.version)
        return found
