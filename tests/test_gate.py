"""What a gated run is told: its baseline's load and objective, and which run is accepted in the end."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marline.core import Config, GateRefused, Manifest, RequestError, accelerator_of, accept, accepted, machine, read_config
from marline.tune import Baseline, Setting
from pipelines.gate import Gate

ROOT = Path(__file__).parents[1]
FIRST, SECOND = "20260101-030000-aaaa", "20260102-030000-bbbb"
LOAD: dict[str, Any] = {"rps": 61.5, "seconds": 17.0, "warmup_s": 1.5, "seed": 77}
RULE = "report.fail_if=p99_ms > 1.1 * baseline"
Run = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Leave a complete run behind, in a project of its own."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(ROOT / "models" / "digits_cnn", tmp_path / "models" / "digits_cnn")
    monkeypatch.chdir(tmp_path)

    def leave(name: str, **other: Any) -> Path:
        accelerator = accelerator_of(config(), ROOT)
        report = {
            **dict.fromkeys(("trials", "chosen", "default", "curve", "noise", "gain")),
            "model": "digits_cnn",
            "run": name,
            "machine": machine(),
            "accelerator": {key: getattr(accelerator, key) for key in ("kind", "name", "time_scale")},
            "slo": {"percentile": 99.0, "ms": 61.0},
            "objective": {"name": "rate", "at_rps": None},
            "measured": {"arrivals": "poisson"},
            "metrics": {"load": {"batch_size": 4, "max_batch_delay_ms": 5, "workers": 1, "arrivals": "poisson", **LOAD}},
        }
        folder = tmp_path / "artifacts" / "digits_cnn" / name / "report"
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(report | other))
        (folder / "manifest.json").write_text("{}")
        return folder.parent

    return leave


def config(*words: str) -> Config:
    return read_config(["model=digits_cnn", "accelerator=cpu", *words]).config


def gate(*words: str) -> Gate:
    told = config(*words)
    return Gate.of(told, accelerator_of(told, ROOT))


def reported(state: str, differs: list[str]) -> Manifest:
    facts = {"gate": {"state": state, "run": FIRST, "differs": differs, "rules": []}}
    told: dict[str, Any] = {key: {} for key in ("outputs", "inputs", "config", "versions")}
    return Manifest(stage="report", model="digits_cnn", run=SECOND, facts=facts, seconds=1.0, folder=Path(), **told)


def test_without_rules_nothing_is_looked_for(run: Run) -> None:
    accept(run(FIRST), "asked for")

    assert Gate(config()) == gate()


def test_the_accepted_run_gives_its_load_and_its_objective(run: Run) -> None:
    accept(run(FIRST), "asked for")
    run(SECOND)

    found = gate(RULE)

    assert Baseline(setting=Setting(4, 5, 1), **LOAD) == found.baseline
    assert (61.0, FIRST) == (found.config.tune.slo_ms, found.config.report.baseline)
    assert not found.accepts
    assert gate(RULE, "fresh=tune").accepts


@pytest.mark.parametrize("told", [SECOND, f"artifacts/digits_cnn/{SECOND}/report/report.json"])
def test_a_named_run_counts_before_the_accepted_one_and_accepts_none(told: str, run: Run) -> None:
    accept(run(FIRST), "asked for")
    run(SECOND, slo={"percentile": 99.0, "ms": 77.0})

    found = gate(RULE, f"report.baseline={told}", "fresh=tune")

    assert (77.0, False) == (found.config.tune.slo_ms, found.accepts)


@pytest.mark.parametrize(
    ("words", "other"),
    [
        (["tune.slo_ms=90"], {}),
        (["tune.percentile=95"], {}),
        (["loadtest.arrivals=constant"], {}),
        ([], {"machine": machine() | {"cores": 999}}),
        ([], {"accelerator": {"kind": "emulated", "name": "any", "time_scale": 2.0}}),
    ],
)
def test_the_load_of_a_run_that_cannot_be_compared_is_not_sent(words: list[str], other: dict[str, Any], run: Run) -> None:
    accept(run(FIRST, **other), "asked for")

    assert gate(RULE, *words).baseline is None


@pytest.mark.parametrize(
    ("told", "said"),
    [(SECOND, "list=true shows every run"), ("no/report.json", "there is no"), ("configs/default.yaml", "is damaged")],
)
def test_a_baseline_that_is_none_is_a_wrong_request(told: str, said: str, run: Run) -> None:
    run(FIRST)

    with pytest.raises(RequestError, match=said):
        gate(RULE, f"report.baseline={told}")


def test_the_first_run_has_no_baseline_and_is_one_only_where_it_is_scheduled(run: Run) -> None:
    folder = run(SECOND)

    gate(RULE).settle(reported("passed", []), folder)
    assert accepted(folder.parents[1], "digits_cnn") is None
    gate(RULE, "fresh=tune").settle(reported("passed", []), folder)

    assert SECOND == accepted(folder.parents[1], "digits_cnn")


@pytest.mark.parametrize(
    ("state", "differs", "next_one"), [("passed", [], SECOND), ("passed", ["machine"], FIRST), ("refused", [], FIRST)]
)
def test_a_scheduled_run_that_passes_is_the_next_baseline(state: str, differs: list[str], next_one: str, run: Run) -> None:
    accept(run(FIRST), "asked for")
    folder, scheduled = run(SECOND), gate(RULE, "fresh=tune")

    if state == "refused":
        with pytest.raises(GateRefused, match=f"the gate has refused against run {FIRST}"):
            scheduled.settle(reported(state, differs), folder)
    else:
        scheduled.settle(reported(state, differs), folder)

    assert next_one == accepted(folder.parents[1], "digits_cnn")
