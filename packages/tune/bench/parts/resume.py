"""A pipeline that is killed in the middle of a trial, again and again: what it measured stays, and is not measured twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marline.core import file_sha256, project_root
from packages.handler.bench.parts.figure import figure
from packages.tune.bench.parts.kept import once
from packages.tune.bench.parts.tunings import MODEL, RUNS, tuned, words_of

WORDS = (f"model={MODEL}", "accelerator=rn50_t4_pytorch_eager_amp", "time_scale=4", "tune.slo_ms=400", "profile=smoke")
KILLED_IN = (1, 2, 4, 6)  # the trials in whose middle the process is killed
INTO_S, DEADLINE_S, POLL_S = 2.5, 300.0, 0.05


def resume() -> list[dict[str, Any]]:
    """A kill -9 in four trials of one tuning run, the same command after each: nothing is measured twice, nothing lost."""
    seen = once("resume", _killed, asked=WORDS)
    told = f"killed in trials {seen['killed_in']}; {seen['trials']} trials, {seen['earlier']} of them from before the last kill"
    name = "kill -9 in the middle of a trial"
    twice, lost = seen["measured_twice"], seen["lost"]
    return [
        figure(f"{name}: trials measured twice", twice, "", 0, twice == 0, seen["trials"], told),
        figure(f"{name}: trials lost", lost, "", 0, lost == 0, seen["trials"], told),
    ]


def _killed() -> dict[str, Any]:
    words = words_of(*WORDS, f"loadtest.seed={int(time.time())}")  # so that no finished run answers in our place
    before, kept, lost = _runs(), dict[str, str](), 0
    for number in KILLED_IN:
        _kill_in(number, words)
        now = {file.name: file_sha256(file) for file in (RUNS / MODEL / ".trials").glob("*/*.json")}
        lost += sum(now.get(name) != sha256 for name, sha256 in kept.items())
        kept = now
    trials = tuned(*words, fresh=False)["trials"]
    # Each run writes logs/tune/trial-NNN for what it measures itself: a number that two finished is one measured twice.
    finished = [int(file.parent.name[-3:]) for run in _runs() - before for file in run.glob("logs/tune/trial-*/samples.json")]
    return {
        "killed_in": list(KILLED_IN),
        "trials": len(trials),
        "earlier": sum(trial["run"] is not None for trial in trials),
        "measured_twice": len(finished) - len(set(finished)),
        "lost": lost + len(trials) - len(set(finished)),
    }


def _kill_in(number: int, words: Sequence[str]) -> None:
    """Start the command and kill it, and nothing else, when the trial has been going on for a while."""
    before = _runs()
    told = [sys.executable, "-m", "pipelines", "until=tune", *words]
    with subprocess.Popen(told, cwd=project_root(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + DEADLINE_S
        while not any((run / "logs" / "tune" / f"trial-{number:03d}" / "plan.json").is_file() for run in _runs() - before):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise TimeoutError(f"trial {number} was not reached: the process ended with {process.poll()}")
            time.sleep(POLL_S)
        time.sleep(INTO_S)
        os.kill(process.pid, signal.SIGKILL)


def _runs() -> set[Path]:
    return set((RUNS / MODEL).glob("*-*-*"))
