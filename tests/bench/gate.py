"""Benchmark `gate`: whether it passes a run of the same, and refuses one whose handler takes a fifth longer.

Real tuning runs on real TorchServe, on an emulated accelerator: one that is the baseline, ten of the very same, and ten with a
handler that sleeps a fifth of each forward pass longer. Each result is kept, so that an interrupted benchmark goes on where it
was; `python -m tests.bench.gate 2` makes only two tries of each.
"""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from marline.core import StageError, project_root, read_config
from marline.loadtest import wait_until_quiet
from marline.report._baseline import read_report
from marline.report._gate import judged, lines
from marline.report._metrics import metrics
from packages.handler.bench.parts.figure import figure
from packages.tune.bench.parts.kept import MEASURING, once

TRIES, TRY_S = 10, 600.0
RULES = "p99_ms > 1.1 * baseline or batch_ms > 1.05 * baseline or rps < 0.9 * baseline"
HOME = Path("artifacts/bench/gate")
QUICK = (  # a small profile: two batch sizes, an A/A pair of 8 s each, confirmations of 10 s
    *("model=digits_cnn", "accelerator=rn50_t4_pytorch_eager_amp", "time_scale=2", "loadtest.warmup_s=1"),
    *("tune.slo_ms=200", "tune.percentile=95", "tune.batch_sizes=[4,8]", "tune.max_batch_delays_ms=[2]"),
    *("tune.trial_s=4", "tune.steps=1", "tune.confirm_s=10"),
    *("tune.curve_repeats=15", "export.batch_sizes=[1,2,3]", "export.fuse=false", "export.channels_last=false"),
    *(f"artifacts={HOME}", "keep_runs=100", "fresh=tune"),
)
SLOWER = """

_usual = handler.inference


def _slower(self, data, *more, **parameters):
    began = time.perf_counter()
    answers = _usual(self, data, *more, **parameters)
    time.sleep(0.2 * (time.perf_counter() - began))
    return answers


handler.inference = _slower
"""


def figures(tries: int = TRIES) -> list[dict[str, Any]]:
    """How many of the tries the gate decides rightly, of the same and of the slower handler.

    What is kept is what was measured; the gate judges it anew each time.
    """
    keep = partial(once, code=(*MEASURING, "packages/tune/src"))
    baseline = keep("gate-baseline", partial(_run, 0), asked=[QUICK, 0])["run"]
    then = _read(baseline)
    told = read_config(["model=digits_cnn", f"report.fail_if={RULES}"]).config.report
    found: dict[str, list[dict[str, Any]]] = {"same": [], "slower": []}
    for number in range(1, tries + 1):
        for kind, seen in found.items():
            words = [f"report.fail_if={RULES}", f"report.baseline={baseline}", *_handler(kind)]
            made = keep(f"gate-{kind}-{number}", partial(_run, number, words), asked=[QUICK, words, number])
            seen.append(judged(told, _read(made["run"]), then) or {})
            print(f"{kind} {number}, run {made['run']}, ended with {made['code']}: {'; '.join(lines(seen[-1]))}", flush=True)
    return [_row("same", "passed", found["same"]), _row("slower", "refused", found["slower"])]


def _read(run: str) -> dict[str, Any]:
    """The report of a run, with what the code of today makes of its samples."""
    report = read_report(project_root() / HOME / "digits_cnn" / run / "report" / "report.json")
    told = report["tune_folder"], report["measured"]["confidence"], report["deployed"]["ready_s"]
    return report | {"metrics": metrics(report, *told)}


def _row(kind: str, wanted: str, seen: Sequence[dict[str, Any]]) -> dict[str, Any]:
    right, ratios = sum(one["state"] == wanted for one in seen), []
    for place, rule in enumerate(RULES.split(" or ")):
        told = [one["rules"][place] for one in seen]
        known = [one["ratio"] for one in told if one["ratio"] is not None]
        spread = f" {min(known):.2f} to {max(known):.2f}" if known else ""
        states = ", ".join(f"{count} {state}" for state, count in Counter(one["state"] for one in told).items())
        ratios.append(f"{rule.split()[0]}{spread} × the baseline's ({states})")
    name = {"same": "runs of the same that pass", "slower": "runs of a handler slowed by a fifth that are refused"}[kind]
    return figure(name, right, "", len(seen), right == len(seen), len(seen), "; ".join(ratios))


def _run(seed: int, words: Sequence[str] = ()) -> dict[str, Any]:
    """One run of the real command; what its gate said, which must be what its exit code says."""
    wait_until_quiet()
    command = [sys.executable, "-m", "pipelines", *QUICK, f"loadtest.seed={100 * seed}", *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=TRY_S, cwd=project_root(), check=False)
    named = re.findall(r"^  run +(\S.*)$", ran.stdout, re.MULTILINE)
    file = Path(named[0]) / "report" / "report.json" if named else None
    if file is None or not file.is_file():
        raise StageError(f"{' '.join(command[1:])} ended with code {ran.returncode}: {ran.stderr.strip()[-600:]}")
    gate = json.loads(file.read_text())["baseline"]
    expected = int(gate is not None and gate["state"] == "refused")
    if ran.returncode != expected or (expected and "the gate has refused" not in ran.stderr):
        raise StageError(f"the gate says {gate}, the command ended with {ran.returncode}: {ran.stderr.strip()[-600:]}")
    return {"run": file.parents[1].name, "code": ran.returncode}


def _handler(kind: str) -> list[str]:
    """The words that put the slower handler in place of the model's own; none for the same."""
    if kind == "same":
        return []
    root, folder = project_root(), HOME / "slower"
    (root / folder).mkdir(parents=True, exist_ok=True)
    for file in (root / "models" / "digits_cnn").glob("*.py"):
        shutil.copy(file, root / folder)
    own = (root / "models" / "digits_cnn" / "handler.py").read_text().replace("from typing", "import time\nfrom typing", 1)
    (root / folder / "handler.py").write_text(own + SLOWER)
    return [f"archive.handler={folder}/handler.py"]


if __name__ == "__main__":
    print(json.dumps(figures(int(sys.argv[1])), indent=1))
