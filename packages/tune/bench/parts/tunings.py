"""Whole tuning runs by the real command, and one load on a server of our own, for the parts that judge what tuning finds."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from marline.core import StageError, accelerator_of, newest, project_root, read_config
from marline.deploy import serving
from marline.loadtest import Load, measuring, wait_until_quiet
from marline.tune._journal import Raw
from marline.tune._trial import Bench, run_trial
from packages.tune.bench.parts.kept import FOLDER

MODEL, RUNS = "digits_cnn", FOLDER / "runs"
TUNING_S = 1800.0
ATTEMPTS, AGAIN = 3, 100_000  # of a load, and by how much the seed of the next is further

Started = Callable[[], Bench]  # a server that emulates, and what is sent to it


def words_of(*words: str) -> list[str]:
    """The words of a tuning run whose artifacts are the benchmark's own."""
    return [
        *words,
        *[f"artifacts={RUNS.relative_to(project_root())}"] * (not any(one.startswith("artifacts=") for one in words)),
    ]


def tuned(*words: str, fresh: bool = True) -> dict[str, Any]:
    """`nox -s tune -- words`, measured anew; what result.json says, and the run's folder. StageError where it fails."""
    told = [sys.executable, "-m", "pipelines", "until=tune", *words_of(*words), *["fresh=tune"] * fresh]
    ran = subprocess.run(told, capture_output=True, text=True, timeout=TUNING_S, cwd=project_root(), check=False)
    if ran.returncode != 0:
        raise StageError(f"{' '.join(told[1:])} ended with code {ran.returncode}: {ran.stderr.strip()[-600:]}")
    folder = Path(re.findall(r"^  run +(\S.*)$", ran.stdout, re.MULTILINE)[0]) / "tune"
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result | {"folder": str(folder.resolve())}


@contextmanager
def emulating(*words: str) -> Iterator[Bench]:
    """A server that emulates what `words` name, as tuning starts it, and what is sent to it."""
    config = read_config(words_of(*words)).config
    payloads = sorted(newest(RUNS, config.model, "load").path("sample").iterdir())
    accelerator, slo_ms, logs = accelerator_of(config, project_root()), float(config.tune.slo_ms), RUNS / "logs"
    with measuring("the benchmark of tuning"), serving(config.deploy, logs, accelerator=accelerator) as server:
        yield Bench(server, config.model, payloads, config.tune, config.loadtest, slo_ms, RUNS, RUNS / "loads")


@contextmanager
def when_asked(*words: str) -> Iterator[Started]:
    """`emulating`, from the first time that somebody asks for it: not at all where everything is kept already."""
    with ExitStack() as stack:
        found: list[Bench] = []

        def started() -> Bench:
            if not found:
                found.append(stack.enter_context(emulating(*words)))
            return found[0]

        yield started


def loaded(bench: Bench, load: Load) -> Raw:
    """What a load shows of the model as it is served now, as a trial of the tuner's would; the last of three that are invalid.

    Each attempt has arrivals of its own: those with which a queue grew once would let it grow again. The server is idle when a
    load is sent and when this returns: what an overload left in the queue would be the next one's.
    """
    raw = run_trial(bench, load, 0, "bench")
    for attempt in range(1, ATTEMPTS):
        if raw.reason is None:
            break
        print(f"  sent again: {raw.reason}", flush=True)
        wait_until_quiet()
        raw = run_trial(bench, replace(load, seed=load.seed + AGAIN * attempt), 0, "bench")
    return raw
