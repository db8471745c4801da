"""The command: what it writes, what follows from what, and what it refuses."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import marline.plan
from marline.core import Config, Manifest, RequestError, StageError, read_config
from marline.plan import plan
from marline.report import replicas

Make = Callable[..., tuple[Manifest, Manifest]]
ROOT = Path(__file__).parents[3]
PAGES = ("plan.html", "plan.md", "plan.svg", "plan.json")
EMULATED = {"kind": "emulated", "name": "rn50_t4_pytorch_eager_amp", "time_scale": 4.0}


def config(*words: str) -> Config:
    return read_config(["model=digits_cnn", "plan.rps=3000", *words]).config


def planned(make: Make, tmp_path: Path, *words: str, **told: Any) -> tuple[dict[str, Any], Path]:
    tuned, loaded = make(**told)
    out = tmp_path / "artifacts" / "digits_cnn" / "20260303-000000-0000" / "plan"
    out.mkdir(parents=True)
    plan(config(*words), tuned, loaded, out)
    found: dict[str, Any] = json.loads((out / "plan.json").read_text())
    return found, out


@pytest.mark.parametrize("balancing", ["round_robin", "least_outstanding"])
def test_a_day_is_planned_and_every_file_says_that_it_is_simulated(manifests: Make, tmp_path: Path, balancing: str) -> None:
    words = ("report.price_per_hour=0.5", f"plan.balancing={balancing}")
    found, out = planned(manifests, tmp_path, *words, weights="random", accelerator=EMULATED)
    peak, hours, totals = found["peak"], found["hours"], found["totals"]

    for page in PAGES:
        assert "SIMULATED" in (out / page).read_text()
        assert "EMULATED rn50_t4_pytorch_eager_amp" in (out / page).read_text()
    assert "RANDOM WEIGHTS" in (out / "plan.html").read_text()
    assert 24 == len(hours)
    assert 3000.0 == peak["peak_rps"] == max(hour["peak_rps"] for hour in hours) == max(found["minutes_rps"])
    assert replicas(3000.0, 150.0, 0.3) == peak["rule"]
    assert peak["fewest"] < peak["rule"] == peak["recommended"] - 1 == peak["planned"] - 1
    assert all(hour["hourly"]["replicas"] == max(hour["rule"], hour["fewest"]) + 1 for hour in hours)
    assert all(state["slo_met"] and state["tail_ms"] <= 150 for hour in hours for state in (hour["fixed"], hour["hourly"]))
    for name in ("fixed", "hourly"):
        spent = sum(hour[name]["replicas"] for hour in hours)
        assert (spent, 0.5 * spent) == (totals[name]["replica_hours"], totals[name]["cost"])
        assert math.isclose(totals[name]["cost"] / found["requests"] * 1e6, totals[name]["cost_per_million"], rel_tol=1e-5)
    assert math.isclose(sum(found["minutes_rps"]) * 60, found["requests"], rel_tol=1e-6)
    assert totals["hourly"]["cost"] < totals["fixed"]["cost"]
    assert peak["without_one"]["replicas"] == peak["planned"] - 1
    assert found["proof"]["agrees"]
    assert 180_000 == pytest.approx(found["proof"]["requests"], rel=0.02)
    assert (60.0, "plan") == (found["proof"]["seconds"], out.name)


def test_the_page_asks_the_network_for_nothing_and_hostile_words_stay_words(manifests: Make, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script> [a](javascript:b)"
    _, out = planned(manifests, tmp_path, "plan.hours=1", accelerator=EMULATED | {"name": hostile})
    page, words = (out / "plan.html").read_text(), (out / "plan.md").read_text()
    ids = re.findall(r' id="([^"]+)"', page)

    assert [] == re.findall(r"https?://|@import|<script|<iframe", page)
    assert "default-src 'none'" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert [] == re.findall(r"<script|(?<!\\)\[a\]", words)
    assert len(ids) == len(set(ids))
    assert len(page) < 1_000_000


def test_the_same_request_gives_the_same_bytes(manifests: Make, tmp_path: Path) -> None:
    tuned, loaded = manifests()
    folders = [tmp_path / name / "plan" for name in ("one", "two")]
    for out in folders:
        out.mkdir(parents=True)
        plan(config("plan.hours=3"), tuned, loaded, out)

    first, second = ({page: (out / page).read_bytes() for page in PAGES} for out in folders)
    assert first == second


def test_what_if_there_were_too_few(manifests: Make, tmp_path: Path) -> None:
    found, out = planned(manifests, tmp_path, "plan.replicas=10", "plan.hours=24")
    peak = found["peak"]

    assert (10, 30) == (peak["planned"], peak["recommended"])
    assert (False, None) == (peak["fixed"]["slo_met"], peak["fixed"]["tail_ms"])
    assert found["proof"]["agrees"] is None
    assert {True, False} == {hour["fixed"]["slo_met"] for hour in found["hours"]}
    assert all(hour["hourly"]["slo_met"] for hour in found["hours"])
    assert 10 * 150 < peak["most_rps"] < 10 * 200
    assert "10 replicas of digits_cnn behind round robin do not hold p99 ≤ 150 ms" in (out / "plan.md").read_text()
    assert "∞ (SLO lost)" in (out / "plan.html").read_text()


def test_without_a_price_there_are_replica_hours_and_no_costs(manifests: Make, tmp_path: Path) -> None:
    found, out = planned(manifests, tmp_path, "plan.hours=1", "plan.trace=constant", "plan.spare=0")

    assert {"replica_hours": 29, "cost": None, "cost_per_million": None} == found["totals"]["fixed"]
    assert "report.price_per_hour says what a replica is an hour" in (out / "plan.html").read_text()


def test_hours_without_a_request_cost_what_one_replica_does(manifests: Make, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("0,100\n3600,0\n7200,0\n")
    found, _ = planned(manifests, tmp_path, f"plan.trace={trace}", "plan.hours=2", "plan.spare=0")

    assert [28 + 1, 1] == [hour["hourly"]["replicas"] for hour in found["hours"]]
    assert (None, True, 0.0) == tuple(found["hours"][1]["fixed"][key] for key in ("tail_ms", "slo_met", "utilisation"))


def test_growth_is_added_to_every_hour(manifests: Make, tmp_path: Path) -> None:
    found, _ = planned(manifests, tmp_path, "plan.hours=1", "plan.trace=constant", "plan.growth=0.5")

    assert 4500.0 == found["peak"]["peak_rps"]
    assert replicas(4500, 150.0, 0.3) == found["peak"]["rule"]


def test_a_result_without_the_fitted_twin_is_planned_from_its_curve_and_says_so(manifests: Make, tmp_path: Path) -> None:
    tuned, loaded = manifests()
    told = json.loads(tuned.path("result.json").read_text())
    service = told.pop("service")
    older = told | {
        "curve": service["points"],
        "values": [{"key": "jobQueueSize", "was": 1000, "now": 60, "why": ""}],
    }
    tuned.path("result.json").write_text(json.dumps(older))
    out = tmp_path / "again" / "plan"
    out.mkdir(parents=True)

    plan(config("plan.hours=1"), tuned, loaded, out)

    assert "the one measured without load" in json.loads((out / "plan.json").read_text())["warnings"][0]
    assert "the one measured without load" in (out / "plan.html").read_text()


@pytest.mark.parametrize("changes", [{"rps": 0.0}, {"slo_met": False}], ids=str)
def test_without_a_rate_within_the_objective_nothing_is_planned(
    manifests: Make, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(StageError, match=r"found no rate within its SLO .* tune\.slo_ms=300"):
        planned(manifests, tmp_path, chosen={"batch_size": 8, "max_batch_delay_ms": 5, "workers": 1, "rps": 150.0} | changes)


def test_a_result_without_overheads_names_the_command_that_makes_one(manifests: Make, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nox -s tune -- model=digits_cnn fresh=tune"):
        planned(manifests, tmp_path, service=None, overheads=None)


def run(artifacts: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "marline.plan", "model=digits_cnn", f"artifacts={artifacts}", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_plans_with_the_newest_finished_tuning(manifests: Make, tmp_path: Path) -> None:
    manifests()

    done = run(tmp_path / "artifacts", "plan.rps=1000", "plan.hours=2")

    assert (0, "") == (done.returncode, done.stderr)
    assert "Simulated: 1,000 requests/s of digits_cnn need 11 replicas behind round robin" in done.stdout
    assert 1 == len(list(tmp_path.glob("artifacts/digits_cnn/*/plan/manifest.json")))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan.rps=1000"], "make it with nox -s tune -- model=digits_cnn"),
        (["plan.rps=2000000"], "plan.rps = 2000000 from the command line is refused"),
        (["plan.balancing=random"], "plan.balancing = 'random' from the command line is refused"),
    ],
)
def test_a_wrong_request_says_what_to_write_instead(tmp_path: Path, words: list[str], said: str) -> None:
    done = run(tmp_path / "artifacts", *words)

    assert 2 == done.returncode
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_public_names() -> None:
    exposed = {name for name in vars(marline.plan) if not name.startswith("_")}

    assert sorted(exposed) == marline.plan.__all__
