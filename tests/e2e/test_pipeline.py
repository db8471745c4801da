import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from marline.archive import read_mar
from marline.core import STAGES, Manifest, read_manifest, verify
from marline.plan import Twin
from marline.tune import Service, Setting, predict

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("scheduled")]  # begun here, looked at in test_unattended

CONFIG = {"batch_size", "max_batch_delay_ms", "workers", "rps", "p50_ms", "p95_ms", "p99_ms", "samples", "slo_met"}
TRIAL = CONFIG | {"valid", "invalid_reason", "seconds", "errors", "mean_batch"}
REPORT = {
    *("schema", "model", "run", "weights", "accelerator", "slo", "default", "chosen", "gain", "trials", "stages"),
    *("versions", "warnings"),
}


def report_of(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "report" / "report.json").read_text())
    return content


def test_a_smoke_run_goes_through_every_stage(smoke: Any) -> None:
    print(f"smoke took {smoke.seconds:.0f} s")

    assert (0, "") == (smoke.code, smoke.err)
    assert [] == smoke.cached
    assert list(STAGES) == re.findall(r"^  (\w+) +\d+\.\d s  ", smoke.out, re.MULTILINE)


def test_it_ends_with_a_summary_and_the_report_s_path(smoke: Any) -> None:
    words = smoke.out.split()

    assert {"weights", "SLO", "default", "chosen", "replicas", "report"} <= set(words)
    assert str(smoke.run / "report" / "report.html") in words
    assert report_of(smoke.run)["answer"] in smoke.out
    assert all((smoke.run / "report" / f"report.{kind}").stat().st_size for kind in ("json", "md", "html"))


def test_the_report_keeps_its_contract(smoke: Any) -> None:
    report = report_of(smoke.run)

    assert report.keys() >= REPORT
    assert (1, "digits_cnn", smoke.run.name) == (report["schema"], report["model"], report["run"])
    assert ("file", "cpu", "auto") == (report["weights"]["kind"], report["accelerator"]["kind"], report["slo"]["origin"])
    assert report["default"].keys() >= CONFIG
    assert report["chosen"].keys() >= CONFIG
    assert all(trial.keys() >= TRIAL for trial in report["trials"])
    assert list(STAGES[:-1]) == [stage["name"] for stage in report["stages"]][:6]
    assert report["versions"].keys() >= {"torch", "torchserve", "locust"}


def test_the_default_and_the_chosen_were_really_tried_and_the_whole_grid_predicted(smoke: Any) -> None:
    result = json.loads((smoke.run / "tune" / "result.json").read_text())
    keys = ("batch_size", "max_batch_delay_ms")

    tried = {tuple(trial[key] for key in keys) for trial in result["trials"]}
    assert {(1, 100), tuple(result["chosen"][key] for key in keys)} <= tried
    assert {(1, 100), *((size, delay) for size in (2, 4, 8) for delay in (2, 10))} == {
        tuple(told[key] for key in keys) for told in result["predictions"]
    }
    assert ["noise", "noise"] == [trial["purpose"] for trial in result["trials"]][:2]
    assert len(result["compared"]) == sum(trial["valid"] for trial in result["trials"])
    assert all((smoke.run / "tune" / trial["samples_file"]).is_file() for trial in result["trials"])


def test_the_twin_that_the_grid_was_predicted_with_is_kept_and_a_day_can_be_planned_with_it(smoke: Any) -> None:
    result = json.loads((smoke.run / "tune" / "result.json").read_text())
    service, slo = Service.read(result["service"]), result["slo"]
    keys = ("batch_size", "max_batch_delay_ms", "workers")
    tried = {tuple(trial[key] for key in keys) for trial in result["trials"]}
    told = {Setting(*(one[key] for key in keys)): one["rps"] for one in result["predictions"]}
    untried = [one for one in told if (one.batch_size, one.max_batch_delay_ms, one.workers) not in tried]

    again = predict(service, untried, slo["ms"], slo["percentile"])
    assert [told[one.setting] for one in again] == [round(one.rps, 2) for one in again]
    twin = Twin(service=service, setting=untried[0], slo_ms=slo["ms"], percentile=99.0, balancing="least_outstanding")
    assert 0 < twin.level(0.5 * again[0].saturated_rps * 10, 10).tail_ms < math.inf


def test_the_tuned_archive_asks_for_the_values_that_the_report_shows(smoke: Any) -> None:
    report, tuned = report_of(smoke.run), read_manifest(smoke.run / "tune")
    told = yaml.safe_load(read_mar(tuned.path(report["tuned"]["archive"])).config)

    shown = {key: value["now"] for value in report["values"] for key in value["key"].split(", ")}
    assert shown == {key: told[key] for key in shown}
    assert {"jobQueueSize", "responseTimeout", "clientTimeoutInMills"} <= shown.keys()
    assert shown["batchSize"] * (shown["maxWorkers"] + 1) <= shown["jobQueueSize"] <= 1000


def test_every_file_of_the_run_is_the_one_that_was_made(smoke: Any) -> None:
    for name in STAGES:
        verify(read_manifest(smoke.run / name))


def test_an_identical_run_does_no_stage_again_and_says_the_same(smoke: Any, sharing: Any, quick: tuple[str, ...]) -> None:
    again = sharing.run("pipelines", "model=digits_cnn", *quick)
    print(f"the identical run took {again.seconds:.1f} s")

    first, second = report_of(smoke.run), report_of(again.run)
    assert (0, list(STAGES)) == (again.code, again.cached)
    assert again.run == (again.run.parent / "latest").resolve()
    assert {smoke.run.name} == {(again.run / name).resolve().parent.name for name in STAGES}
    for key in ("chosen", "default", "gain", "slo", "trials", "weights"):
        assert first[key] == second[key]


def test_a_damaged_archive_in_the_cache_is_noticed_and_made_again(
    stage: Callable[[str], Manifest], sharing: Any, quick: tuple[str, ...]
) -> None:
    archived = stage("archive")
    file = archived.path(archived.facts["archive"])
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    try:
        again = sharing.run("pipelines", "model=digits_cnn", *quick, "until=archive")
    finally:
        file.write_bytes(whole)

    assert (0, "") == (again.code, again.err)
    assert ["load", "wrap", "export"] == again.cached
    assert "its sha256 differs; doing it again" in " ".join(again.out.split())
    assert whole == (again.run / "archive" / file.name).read_bytes()


def test_an_emulated_run_says_so_everywhere_and_is_not_served(pair: dict[str, Any], place: Any) -> None:
    run = pair["emulated"].run

    assert "emulated" == report_of(run)["accelerator"]["kind"]
    assert all("EMULATED" in (run / "report" / f"report.{kind}").read_text() for kind in ("json", "md", "html"))
    refused = place.run("marline.deploy.serve", "model=digits_cnn")
    assert 2 == refused.code
    assert "neither of profile smoke nor emulated" in refused.err
