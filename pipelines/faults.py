"""`python -m pipelines.faults group=deploy only=F07 times=3`: injects faults and says whether what must follow did, in time.

A fault is a test in `tests/faults/GROUP/` with the marker `faults`; each round is a pytest of its own, so that nothing but what
a fault itself leaves behind connects one round with the next.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.table import Table

from marline.core import MarlineError, RequestError, StageError, project_root, write_json

ROUND_S = 1800.0  # beyond every budget of a round together
MARKER = r'pytest\.mark\.faults\(\s*"(\w+)"'
COLUMNS = ("fault", "what", "expected", "budget s", "seconds", "passed")


def main(words: Sequence[str]) -> int:
    """Exit code 0 when every fault passed in every round, 1 when one did not, 2 for a wrong request."""
    try:
        root = project_root()
        told = _told(root, words)
        rounds = [_round(root / "tests" / "faults" / told["group"], told["only"]) for _ in range(int(told["times"]))]
    except MarlineError as error:
        print(f"faults: {error}", file=sys.stderr)
        return error.exit_code
    rows = _together(rounds)
    out = root / "artifacts" / "faults" / f"{told['only'] or told['group'] or 'all'}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"rounds": len(rounds), "faults": rows})
    _show(rows, len(rounds))
    print(json.dumps({"written": str(out.relative_to(root))}))
    return 0 if all(row["passed"] == len(rounds) for row in rows) else 1


def _told(root: Path, words: Sequence[str]) -> dict[str, str]:
    """What was asked for; RequestError with what there is where it is not there."""
    told = {"group": "", "only": "", "times": "1"}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in told:
            raise RequestError(f"{word!r} is not understood; write group=GROUP, only=FAULT or times=NUMBER")
        told[key] = value
    files = sorted((root / "tests" / "faults").glob("*/test_*.py"))
    groups = {file.parent.name for file in files}
    if told["group"] and told["group"] not in groups:
        raise RequestError(f"group={told['group']}: the groups are {', '.join(sorted(groups))}")
    known = {
        fault for file in files if told["group"] in ("", file.parent.name) for fault in re.findall(MARKER, file.read_text())
    }
    if told["only"] and told["only"] not in known:
        raise RequestError(f"only={told['only']}: the faults are {', '.join(sorted(known))}")
    if not re.fullmatch(r"[1-9]\d?", told["times"]):
        raise RequestError(f"times={told['times']}: write a number of rounds from 1 to 99, as in times=3")
    return told


def _round(folder: Path, only: str) -> list[dict[str, Any]]:
    """Every fault of one round, as its test recorded it."""
    with tempfile.TemporaryDirectory(prefix="marline-faults-") as work:
        file = Path(work) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-m", "faults", f"--junitxml={file}"]
        command += ["-o", "junit_duration_report=call", "-o", "junit_family=xunit1"]  # the newer family has no properties
        command += ["-k", f"{only.lower()}_"] * bool(only)
        ran = subprocess.run([*command, str(folder)], check=False, timeout=ROUND_S)
        if not file.is_file():
            raise StageError(f"pytest ended with code {ran.returncode} before any fault was injected; what it said is above")
        cases = ET.parse(file).getroot().iter("testcase")  # noqa: S314 - the file is pytest's own
        return [_row(case) for case in cases]


def _row(case: ET.Element) -> dict[str, Any]:
    """One test: what it recorded of itself, how long it took, and what became of it."""
    told = {told.get("name", ""): told.get("value", "") for told in case.iter("property")}
    bad = [child for child in case if child.tag in ("failure", "error", "skipped")]
    why = "; ".join(f"{child.tag}: {child.get('message', '')}"[:500] for child in bad)
    named = {key: told.get(key, case.get("name", "")) for key in ("fault", "group", "what", "expected")}
    return {**named, "budget_s": float(told.get("seconds", 0)), "seconds": float(case.get("time", 0)), "why": why}


def _together(rounds: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """One row for each fault and way of injecting it: the rounds in which all its tests passed, its longest time, why not."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, row in ((number, row) for number, each in enumerate(rounds) for row in each):
        so_far = found.setdefault((row["fault"], row["what"]), {**row, "seconds": 0.0, "why": "", "failed": set()})
        so_far["seconds"] = max(so_far["seconds"], row["seconds"])
        if row["why"]:
            so_far["failed"].add(number)
            so_far["why"] = row["why"]
    for row in found.values():
        row["passed"] = len(rounds) - len(row.pop("failed"))
    return sorted(found.values(), key=lambda row: str(row["fault"]))


def _show(rows: Sequence[Mapping[str, Any]], rounds: int) -> None:
    table = Table(*COLUMNS, title=f"faults, {rounds} round{'s' * (rounds > 1)}")
    for row in rows:
        figures = (f"{row['budget_s']:g}", f"{row['seconds']:.1f}", f"{row['passed']}/{rounds}")
        table.add_row(row["fault"], row["what"], row["expected"], *figures, style="red" if row["passed"] < rounds else None)
    Console(width=160).print(table)
    for row in rows:
        if row["why"]:
            print(f"{row['fault']} {row['what']}: {row['why']}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
