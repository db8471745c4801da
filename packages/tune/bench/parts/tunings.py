"""Whole tuning runs by the real command, and one load on a server of our own, for the parts that judge what tuning finds."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from marline.core import StageError, accelerator_of, newest, project_root, read_config
from marline.deploy import Server, serving
from marline.loadtest import Load, Target, invalid_reason, measure, measuring, wait_until_quiet
from packages.tune.bench.parts.kept import FOLDER

MODEL, RUNS = "digits_cnn", FOLDER / "runs"
TUNING_S, ATTEMPTS = 1800.0, 3

Started = Callable[[], tuple[Server, Sequence[Path]]]  # a server that emulates, and the payloads to send it


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
def emulating(*words: str) -> Iterator[tuple[Server, Sequence[Path]]]:
    """A server that emulates what `words` name, as tuning starts it, and the payloads to send it."""
    config = read_config(words_of(*words)).config
    payloads = sorted(newest(RUNS, config.model, "load").path("sample").iterdir())
    accelerator = accelerator_of(config, project_root())
    with measuring("the benchmark of tuning"), serving(config.deploy, RUNS / "logs", accelerator=accelerator) as server:
        yield server, payloads


@contextmanager
def when_asked(*words: str) -> Iterator[Started]:
    """`emulating`, from the first time that somebody asks for it: not at all where everything is kept already."""
    with ExitStack() as stack:
        found: list[tuple[Server, Sequence[Path]]] = []

        def started() -> tuple[Server, Sequence[Path]]:
            if not found:
                found.append(stack.enter_context(emulating(*words)))
            return found[0]

        yield started


def loaded(server: Server, payloads: Sequence[Path], load: Load, slo_ms: float) -> Any:
    """What a load shows of the model as it is served now; None where it stays invalid."""
    to = Target(url=f"{server.client.inference_url}/predictions/{MODEL}", token=server.client.tokens.inference)
    for _ in range(ATTEMPTS):
        seen = measure(to, payloads, load, RUNS / "loads")
        if invalid_reason(seen, load, slo_ms) is None:
            return seen
        wait_until_quiet()
    return None
