"""What a user sees: one line per stage, a live bar while one takes long, a summary at the end.

Everything third parties say goes to `logs/pipeline.log` in the run's folder.
"""

import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console as Terminal
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from marline.core import STAGES, Manifest, listening


@dataclass
class Line:
    """The line of one stage."""

    terminal: Terminal
    name: str
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Something the user must know before the stage is done."""
        self.terminal.print(f"  [yellow]{self.name:<8}[/] {escape(text)}", highlight=False)

    def done(self, manifest: Manifest, *, cached: bool, fetched: bool = False) -> None:
        """The stage is finished."""
        how = f"cached  from {manifest.run}{' (store)' * fetched}" if cached else f"{time.monotonic() - self.began:6.1f} s"
        self.terminal.print(f"  [green]{self.name:<8}[/] {how}  [dim]{escape(headline(manifest))}[/]", highlight=False)
        if "answer" in manifest.facts:  # what a tuning run was for
            self.terminal.print(f"\n  [bold]{escape(manifest.facts['answer'])}[/]\n", highlight=False)


class Console:
    """Owns the terminal for one run; third parties' output goes to the log while it does."""

    def __init__(self, model: str, until: str, run: Path) -> None:
        self.model, self.until, self.run = model, until, run
        self.terminal = Terminal(file=sys.stdout, soft_wrap=True, emoji=False)  # a source such as a:package:b is no picture
        self.log = run / "logs" / "pipeline.log"
        self.stack = ExitStack()

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True)
        with ExitStack() as stack:  # an interrupt before the last line must not leave the error output in the log
            stream: TextIO = stack.enter_context(self.log.open("a", buffering=1))
            self._log_to_file()
            stack.enter_context(redirect_stdout(stream))
            stack.enter_context(redirect_stderr(stream))
            stages = STAGES[: STAGES.index(self.until) + 1]
            self.terminal.print(f"[bold]{self.model}[/]: {', '.join(stages)}", highlight=False)
            self.terminal.print(f"  run     {self.run}", highlight=False)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stack.close()

    def _log_to_file(self) -> None:
        """For good: what Prefect says of a failed flow comes after the block, and the user has our message by then."""
        handler = logging.FileHandler(self.log)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.captureWarnings(capture=True)
        warnings.simplefilter("default")
        for logger in (logging.getLogger(), *map(logging.getLogger, ("prefect", "uvicorn", "fastapi", "transformers"))):
            logger.handlers = [handler] if not logger.propagate or logger.name == "root" else []

    @contextmanager
    def stage(self, name: str) -> Iterator[Line]:
        """A live bar for the stage that runs; on a terminal only, elsewhere just the line at its end."""
        bar = Progress(
            TextColumn("  [cyan]{task.fields[stage]:<8}[/]"),
            SpinnerColumn(),
            BarColumn(20),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.description}[/]"),
            console=self.terminal,
            transient=True,
            disable=not self.terminal.is_terminal,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        line = Line(self.terminal, name)
        with bar:
            shown = bar.add_task("", total=1.0, stage=name)

            def listener(done: float, text: str) -> None:
                bar.update(shown, completed=done, description=text)
                if text.startswith("waiting"):
                    line.say(text)

            with listening(listener):
                try:
                    yield line
                except BaseException:
                    after = f"{time.monotonic() - line.began:6.1f} s"
                    self.terminal.print(f"  [red]{name:<8}[/] {after}  not finished; all that was said is in {self.log}")
                    raise

    def summarise(self, manifest: Manifest) -> None:
        """The table a run ends with."""
        from marline.report import summary  # noqa: PLC0415 - it is there by now, and takes a second to import

        report = json.loads(manifest.path("report.json").read_text())
        rows = [*summary(report), ("report", str(self.run / "report" / "report.html"))]
        self.terminal.print()
        for name, value in rows:
            self.terminal.print(f"  [bold]{name:<12}[/] {escape(value)}", highlight=False)

    def delivered(self, told: str) -> None:
        """Where the tuned archive went."""
        self.terminal.print(f"  [bold]{'target':<12}[/] {escape(told)}", highlight=False)


def headline(manifest: Manifest) -> str:
    """The one fact about a finished stage that its line shows."""
    facts = manifest.facts
    lines = {
        "load": lambda: (
            f"{facts['weights']['kind']} weights ({facts['weights']['detail']}), "
            + ("parameters not counted" if facts["parameters"] is None else f"{facts['parameters']:,} parameters")
        ),
        "wrap": lambda: str(facts.get("note") or f"{facts['auto_class']}, {_told_to(facts)}"),
        "export": lambda: _exported(facts),
        "archive": lambda: f"{facts['archive']}, {facts['size_bytes'] / 1e6:.1f} MB, sha256 {facts['sha256'][:12]}",
        "deploy": lambda: f"ready after {facts['ready_s']:.1f} s, {facts['golden']} golden pairs equal over HTTP",
        "tune": lambda: f"{facts['load_tests']} load tests, {facts['strategy']}, tuned archive {facts['tuned']['sha256'][:12]}",
        "report": lambda: str(manifest.folder / "report.html"),
    }
    return lines[manifest.stage]()


def _exported(facts: Mapping[str, Any]) -> str:
    if facts["method"] == "none":
        return str(facts["reason"])
    places = ", ".join(dict.fromkeys(row["stage"] for row in facts["parity"]))
    return f"{facts['method']}, largest difference {max((row['max_abs'] for row in facts['parity']), default=0):.1g} ({places})"


def _told_to(facts: Mapping[str, Any]) -> str:
    reports = f"reports to {facts['collector_url']}" if facts["collector_url"] else "reports nothing"
    return f"{reports}, uploaded to {facts['pushed']}" if facts.get("pushed") else reports
