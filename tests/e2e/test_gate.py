"""A gated run on a real server: it sends its baseline's load, and ends as its rules say."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e
IMPOSSIBLE, CERTAIN = "p99_ms > 1000 * baseline", "memory_mb > 0.001 * baseline"


@pytest.fixture(scope="module")
def own(sharing: Any, smoke: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The smoke run in a folder of its own, accepted."""
    assert 0 == smoke.code, smoke.err
    artifacts = tmp_path_factory.mktemp("gated") / "artifacts"
    shutil.copytree(smoke.run.parent, artifacts / "digits_cnn", symlinks=True)
    cache = Path(".prefect", "storage")  # whose stages are those of the smoke run's own folder
    shutil.copytree(sharing.artifacts / cache, artifacts / cache)
    place = replace(sharing, artifacts=artifacts)
    accepting = place.run("marline.report._runs", "model=digits_cnn", f"accept={smoke.run.name}")
    assert (0, "") == (accepting.code, accepting.err)
    return place


@pytest.fixture(scope="module")
def gated(own: Any, smoke: Any, quick: tuple[str, ...]) -> Any:
    """The same model again, of batches the chosen one alone, with rules of which one always fires."""
    chosen = json.loads((smoke.run / "report" / "report.json").read_text())["chosen"]
    sizes = [f"tune.batch_sizes=[{max(2, chosen['batch_size'])}]", f"tune.max_batch_delays_ms=[{chosen['max_batch_delay_ms']}]"]
    return own.run("pipelines", "model=digits_cnn", *quick, *sizes, f"report.fail_if={IMPOSSIBLE} or {CERTAIN}")


def test_the_load_that_confirmed_the_baseline_is_sent_again(gated: Any, smoke: Any) -> None:
    before, now = (json.loads((run / "report" / "report.json").read_text()) for run in (smoke.run, gated.run))

    sent = [trial for trial in now["trials"] if trial["purpose"] == "baseline"]
    assert 1 <= len(sent) <= 3
    assert before["metrics"]["load"] == now["metrics"]["baseline"]["load"]
    assert before["slo"]["ms"] == now["slo"]["ms"]
    assert all((gated.run / "tune" / trial["samples_file"]).is_file() for trial in sent)


def test_a_rule_that_fires_ends_with_1_and_the_numbers_and_the_report_is_there(gated: Any, smoke: Any) -> None:
    gate = json.loads((gated.run / "report" / "report.json").read_text())["baseline"]

    assert 1 == gated.code
    assert f"the gate has refused against run {smoke.run.name}" in gated.err
    assert "fired" == gate["rules"][1]["state"]
    assert f"{CERTAIN}: FIRED" in " ".join(gated.err.split())
    assert "Traceback" not in gated.err
    assert "refused against run" in (gated.run / "report" / "report.html").read_text()
    assert gated.run == (gated.run.parent / "latest").resolve()


def test_what_another_run_measured_is_judged_again_without_a_server(gated: Any, own: Any) -> None:
    words = ("model=digits_cnn", f"report.fail_if={IMPOSSIBLE} or t1_ms > 1000 * baseline")

    again = own.run("marline.report", *words)

    assert (0, "") == (again.code, again.err)


def test_both_runs_are_listed_and_compared(gated: Any, own: Any, smoke: Any) -> None:
    listed = own.run("marline.report._runs", "list=true")
    compared = own.run("marline.report._runs", f"compare={smoke.run.name},{gated.run.name}")

    assert (0, 0) == (listed.code, compared.code)
    assert {smoke.run.name, gated.run.name} <= set(listed.out.split())
    assert "accepted" in next(line for line in listed.out.splitlines() if smoke.run.name in line)
    folder = Path(own.artifacts, "digits_cnn", "compared", f"{smoke.run.name}_{gated.run.name}")
    found = {row["metric"]: row["ratios"][0]["value"] for row in json.loads((folder / "compare.json").read_text())["metrics"]}
    assert all(found[name] is not None for name in ("rps", "p50_ms", "t1_ms", "batch_ms", "memory_mb"))
