"""Swaps between two versions under load, and three bad versions."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from marline.core import MarlineError, NotReady, ParityError, StageError, WorkerError, read_config
from marline.deploy import Server, serving, swap
from packages.deploy.bench.parts.under_load import under_load
from packages.deploy.bench.parts.versions import HANGS, RAISES, Versions, versions
from packages.handler.bench.parts.archives import life
from packages.handler.bench.parts.figure import figure, spread

MODEL, SWAPS = "digits_cnn", 20
SWAP_S, BAD_S, NEVER_S = 8.0, 60.0, 15.0  # between swaps; of load beside bad ones; until one that never gets ready is given up


def swaps() -> list[dict[str, Any]]:
    """Failed or wrong requests over 20 swaps between two versions, at 30 requests/s."""
    took: list[float] = []
    with _served() as (server, made, digits, folder):

        def beside() -> None:
            began = time.monotonic()
            for turn in range(SWAPS):
                time.sleep(max(0.0, began + turn * SWAP_S - time.monotonic()))
                done = swap(server, MODEL, made.releases[(turn + 1) % 2])
                if done.warning or done.before is None:
                    raise StageError(f"swap {turn + 1} was none: {done}")
                took.append(done.seconds)

        answers = under_load(server, MODEL, list(made.samples), digits, (SWAPS + 2) * SWAP_S, folder / "load", beside)
    bad = sum(answers.problems.values())
    note = f"{answers.told()}; {answers.switches} switches from one answer to the next; a swap took {spread(took, 1)} s"
    holds = bad == 0 and not answers.over and answers.switches >= SWAPS
    return [
        figure(f"failed or wrong requests over {SWAPS} swaps", bad, "requests", 0, holds, answers.sent, note),
        figure("a swap under load", median(took), "s", None, None, len(took), "from registration until the old one is removed"),
    ]


def bad_versions() -> list[dict[str, Any]]:
    """Failed or wrong requests while three bad versions are rolled back, at 30 requests/s."""
    said: list[str] = []
    with _served() as (server, made, digits, folder):
        bad = {
            "its handler raises": (made.broken(RAISES, "raises"), WorkerError, server),
            "a golden pair fails": (made.wrong(), ParityError, server),
            "it never becomes ready": (made.broken(HANGS, "hangs"), NotReady, replace(server, ready_s=NEVER_S)),
        }

        def beside() -> None:
            for what, (release, expected, on) in bad.items():
                began = time.monotonic()
                try:
                    swap(on, MODEL, release)
                except MarlineError as error:
                    left = [one.version for one in server.client.versions(MODEL)]
                    if type(error) is not expected or left != ["1.0"]:
                        raise StageError(f"{what}: {type(error).__name__}, loaded are {left}: {error}") from error
                    said.append(f"{what}: {type(error).__name__} after {time.monotonic() - began:.1f} s")
                else:
                    raise StageError(f"{what}, and it was made the default")

        answers = under_load(server, MODEL, list(made.samples), digits, BAD_S, folder / "load", beside)
    wrong = sum(answers.problems.values())
    holds = wrong == 0 and not answers.over and len(said) == len(bad) and set(answers.by) == {0}
    note = f"{answers.told()}; {'; '.join(said)}"
    return [figure("failed or wrong requests over 3 roll-backs", wrong, "requests", 0, holds, answers.sent, note)]


@contextmanager
def _served() -> Iterator[tuple[Server, Versions, list[int], Path]]:
    """A server with the first version live, both versions, and the digit of each sample."""
    made = life(MODEL)
    config = read_config([f"model={MODEL}"]).config.deploy
    with tempfile.TemporaryDirectory(prefix="marline-bench-") as kept, serving(config, Path(kept, "logs")) as server:
        told = versions(made, Path(kept))
        swap(server, MODEL, told.releases[0])
        replies = [server.client.predict(MODEL, body, kind) for body, kind in told.releases[0].samples]
        yield server, told, [json.loads(reply.body)["output"]["digit"] for reply in replies], Path(kept)
