"""`python -m marline.deploy.status`: the servers of `nox -s serve` as a table, again and again on a terminal, else once."""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from marline.core import MarlineError, RequestError, ServerError, read_state, state_file
from marline.deploy._client import Client
from marline.deploy._tokens import Tokens, read_tokens

EVERY_S = 1.0
WIDE = 240  # characters of a line that nobody's terminal wraps
COLUMNS = ("model", "version", "workers", "queue", "batch", "memory", "run", "server")


@dataclass(frozen=True, slots=True)
class Row:
    """One version of one model on one server, or a server that gives no answer; texts as they are shown."""

    model: str
    version: str = ""
    workers: str = ""
    queue: str = ""
    batch: str = ""
    memory: str = ""
    run: str = ""
    server: str = ""
    good: bool = True


def rows(states: Sequence[dict[str, Any]]) -> Iterator[Row]:
    """Every version of every model, server by server; a server that several states name is asked once."""
    for url, state in {str(state["management_url"]): state for state in states}.items():
        where = f"{state['predictions_url'].partition('/predictions')[0]}, {_megabytes([state['pid']])} in all"
        client = Client(url, "", _tokens(state))
        try:
            for model in client.served():
                for place, told in enumerate(client.details(model)):
                    yield _row(told, str(state["run"]), where, default=place == 0)
        except ServerError as error:
            yield Row(str(state["model"]), workers="no answer", server=f"{where}: {error}", good=False)


def _tokens(state: dict[str, Any]) -> Tokens:
    """The keys as they are now; a server without tokens has no such file."""
    try:
        return read_tokens(Path(state["key_file"]))
    except (OSError, ValueError, KeyError):
        return Tokens("none", "none")


def _row(told: dict[str, Any], run: str, where: str, *, default: bool) -> Row:
    workers = told["workers"]
    ready = sum(worker["status"] == "READY" for worker in workers)
    queue = told.get("jobQueueStatus", {})
    pending, left = queue.get("pendingRequests", 0), queue.get("remainingCapacity", 0)
    return Row(
        model=told["modelName"],
        version=told["modelVersion"] + ("" if default else ", kept"),
        workers=f"{ready} of {told['minWorkers']} ready",
        queue=f"{pending} of {pending + left}",
        batch=f"{told['batchSize']}, {told['maxBatchDelay']} ms",
        memory=_megabytes([worker["pid"] for worker in workers]),
        run=run,
        server=where,
        good=ready >= told["minWorkers"] > 0 and left > 0,
    )


def _megabytes(pids: Sequence[int]) -> str:
    """What processes and all below them hold in memory."""
    held = 0
    for pid in pids:
        try:
            above = psutil.Process(pid)
            held += sum(process.memory_info().rss for process in (above, *above.children(recursive=True)))
        except (psutil.Error, ValueError):  # it has ended, or it is a worker that has no process now
            continue
    return f"{held / 1e6:,.0f} MB"


def table(found: Sequence[Row]) -> Table:
    """The rows as they are shown, what is not as it should be in red."""
    shown = Table(box=None, pad_edge=False, caption=time.strftime("%H:%M:%S"), caption_justify="left")
    for column in COLUMNS:
        shown.add_column(column, overflow="fold")
    for row in found:
        cells = [escape(str(getattr(row, column))) for column in COLUMNS]
        shown.add_row(*cells, style=None if row.good else "red")
    return shown


def states(model: str | None) -> list[dict[str, Any]]:
    """What the running servers of this clone left to be found by, or the one of a model."""
    names = [model] if model else sorted(file.stem for file in state_file("any").parent.glob("*.json"))
    found = [state for name in names if (state := read_state(name)) is not None]
    if not found:
        command = f"nox -s serve -- model={model or 'NAME'}"
        raise RequestError(f"no server of {model or 'any model'} runs here; start one with {command}")
    return found


def main(words: Sequence[str]) -> int:
    """Exit code 0 when every worker that should be is ready, 1 when not, 2 when there is no server."""
    told = dict(word.partition("=")[::2] for word in words)
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    try:
        unknown = sorted(set(told) - {"model", "status"})
        if unknown:
            raise RequestError(f"{unknown[0]}={told[unknown[0]]} has no effect on status=true; it takes model=NAME alone")
        found = list(rows(states(told.get("model"))))
        if not console.is_terminal:
            console.print(table(found))
            return 0 if all(row.good for row in found) else 1
        with Live(table(found), console=console, auto_refresh=False) as live:
            while True:
                time.sleep(EVERY_S)
                live.update(table(list(rows(states(told.get("model"))))), refresh=True)
    except MarlineError as error:
        print(f"status: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
