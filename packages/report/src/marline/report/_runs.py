"""`python -m marline.report._runs`: of runs that are done; `list=true`, `compare=RUN,RUN`, `model=NAME accept=RUN`."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Shown

from marline.core import MarlineError, RequestError, accept, located, project_root
from marline.report._baseline import RUN, read_report
from marline.report._compare import table, write
from marline.report._list import listed, models
from marline.report._tables import Table

KNOWN = ("list", "compare", "accept", "model", "artifacts")
WIDE = 200


def main(words: Sequence[str]) -> int:
    """Exit code 2 for a wrong request, as where there is no such run."""
    told = dict(word.partition("=")[::2] for word in words)
    try:
        unknown = sorted(set(told) - set(KNOWN))
        if unknown:
            raise RequestError(f"{unknown[0]}={told[unknown[0]]} has no effect here; known are {', '.join(KNOWN)}")
        artifacts = project_root() / told.get("artifacts", "artifacts")
        if re.fullmatch(r"\w[\w.-]*", told.get("model", "any")) is None:
            raise RequestError(f"model={told['model']} is no name of a model; {', '.join(models(artifacts))} have runs")
        names = [told["model"]] if "model" in told else models(artifacts)
        if "accept" in told:
            _accept(artifacts, told.get("model"), told["accept"])
        elif "compare" in told:
            _compare(artifacts, names, told["compare"])
        else:
            _list(artifacts, names)
    except MarlineError as error:
        print(f"report: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _list(artifacts: Path, names: list[str]) -> None:
    found = listed(artifacts, names)
    if not found.rows:
        raise RequestError(
            f"no run of {' or '.join(names) or 'any model'} in {artifacts}; nox -s pipeline -- model=NAME makes one"
        )
    _show(found)


def _compare(artifacts: Path, names: list[str], told: str) -> None:
    """Compare runs and say where the pages are: in the folder of the first one's model."""
    files = [_report(artifacts, names, one) for one in told.split(",")]
    if len(files) < 2:
        raise RequestError(f"compare={told} names one run; write compare=RUN,RUN")
    reports = [read_report(file) for file in files]
    folder = artifacts / reports[0]["model"] / "compared" / "_".join(one["run"] for one in reports)
    found = write(reports, folder)
    _show(table(found))
    for run, differs in found["not_comparable"].items():
        print(f"  {run} is not compared: {'; '.join(differs)}")
    print(f"  {folder / 'compare.html'}")


def _report(artifacts: Path, names: list[str], told: str) -> Path:
    """The report.json of a run, of whichever model, or at a path."""
    if RUN.fullmatch(told) is None:
        return located(told)
    places = [artifacts / name / told / "report" / "report.json" for name in names]
    return next((place for place in places if place.is_file()), places[0] if places else artifacts / told)


def _accept(artifacts: Path, model: str | None, told: str) -> None:
    """Make a run the baseline of those that follow."""
    if model is None:
        raise RequestError(f"accept={told} of which model? write model=NAME accept=RUN")
    name = (artifacts / model / "latest").resolve().name if told == "latest" else told
    if RUN.fullmatch(name) is None:
        raise RequestError(f"accept={told} names no run of {model}; write accept=latest or accept=20260102-030405-6789")
    accept(artifacts / model / name, "asked for")
    print(f"report: {model} is compared with run {name} from now on")


def _show(found: Table) -> None:
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    shown = Shown(box=None, pad_edge=False)
    for place, name in enumerate(found.head):
        shown.add_column(name, overflow="fold", justify="left" if place in found.words else "right")
    for row in found.rows:
        shown.add_row(*map(escape, row.cells), style={"chosen": "bold", "invalid": "dim"}.get(row.kind))
    console.print(shown)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
