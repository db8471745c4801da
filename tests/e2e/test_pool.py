"""Runs that a worker takes from a Prefect server on PostgreSQL, and what becomes of one whose worker is killed."""

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from marline.core import STAGES, import_file

pytestmark = pytest.mark.e2e

TESTS = Path(__file__).parents[1]
POSTGRES, POOLS = import_file(TESTS / "postgres.py", "postgres"), import_file(TESTS / "pool.py", "pool")
DEADLINE_S = 10.0


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if POSTGRES.programs() is None:
        pytest.skip("no PostgreSQL here; apt-get install postgresql")
    home = tmp_path_factory.mktemp("prefect")
    with POSTGRES.postgres() as (database, password), POOLS.pool(database, home) as made:
        yield made
        assert password not in made.said  # the server's command says where its database is, and no more
        assert "its database is postgresql+asyncpg://127.0.0.1:" in made.said


@pytest.fixture(scope="module")
def own(place: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The place of the smoke run, its artifacts and caches, with a temporary folder of our own."""
    return replace(place, temp=tmp_path_factory.mktemp("w"))


@pytest.fixture(scope="module")
def finished(pool: Any, own: Any, smoke: Any, quick: tuple[str, ...]) -> str:
    """A run of the deployment whose stages are all cached: the smoke run's words, in its folder."""
    assert 0 == smoke.code, smoke.err
    told = {"model": "digits_cnn", "profile": "smoke", "fresh": None, "settings": POOLS.settings(quick, own.artifacts)}
    pool.deploy(told)
    run: str = pool.start()
    with pool.worker(own.artifacts, own.environment):
        took = POOLS.within(120, lambda: pool.state(run) in POOLS.ENDED, "the run ends")
    print(f"a worker's cached run took {took:.0f} s from being asked for, the worker's start included")
    return run


def test_a_worker_does_what_is_deployed(pool: Any, finished: str) -> None:
    run = pool.ask(f"/flow_runs/{finished}")

    assert ("COMPLETED", "digits_cnn") == (run["state_type"], run["name"]), (pool.home / "worker.log").read_text()[-3000:]
    tasks = pool.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [finished]}}})
    assert {"Cached"} == {task["state_name"] for task in tasks if not task["name"].startswith("report")}


def test_prefect_s_page_shows_progress_summary_report_and_picture(pool: Any, finished: str) -> None:
    shown = pool.artifacts(finished)

    assert {"digits-cnn-progress", "digits-cnn-summary", "digits-cnn-report", "digits-cnn-picture"} == shown.keys()
    assert 100 == shown["digits-cnn-progress"]["data"]
    assert "digits_cnn" in shown["digits-cnn-summary"]["data"]
    assert "report.html" in shown["digits-cnn-report"]["data"]
    assert shown["digits-cnn-picture"]["data"].startswith("data:image/svg+xml;base64,")
    with urllib.request.urlopen(f"{pool.api.removesuffix('/api')}/ui-settings", timeout=10) as answer:  # noqa: S310 - loopback
        assert pool.api == json.load(answer)["api_url"]  # where the page itself asks


def test_the_form_has_a_type_a_choice_and_a_word_for_every_parameter(pool: Any, finished: str) -> None:
    form = pool.ask(f"/deployments/name/{POOLS.DEPLOYMENT}")["parameter_openapi_schema"]["properties"]

    assert ["model", "profile", "slo_ms", "accelerator", "fresh", "settings"] == sorted(
        form, key=lambda name: form[name]["position"]
    )
    assert all(told["description"] for told in form.values())
    assert {"digits_cnn", "resnet50"} <= set(form["model"]["enum"])
    assert ["smoke", "standard", "thorough"] == form["profile"]["enum"]


def test_a_killed_worker_takes_its_run_along_which_says_so(
    pool: Any, own: Any, finished: str, again: dict[str, Any], until: Callable[..., float]
) -> None:
    killed = pool.start(**again)
    with pool.worker(own.artifacts, own.environment) as worker:
        until(lambda: java(own), 90, "the run has started TorchServe")

        os.kill(worker.pid, signal.SIGKILL)

        took = until(lambda: not own.ours(), DEADLINE_S, "nothing of the run is left")
    marked = until(lambda: pool.state(killed) == "CRASHED", DEADLINE_S, "Prefect knows")
    print(f"nothing was left after {took:.1f} s, and the run was marked {marked:.1f} s after that")
    assert [] == own.servers
    assert ["marline: runs that fell silent"] == [found["name"] for found in pool.ask("/automations/filter", {})]


def test_the_next_run_goes_on_and_tries_a_stage_again_whose_server_died(
    pool: Any, own: Any, again: dict[str, Any], until: Callable[..., float]
) -> None:
    run = pool.start(**again)
    with pool.worker(own.artifacts, own.environment):
        until(lambda: java(own), 90, "the run has started TorchServe")
        java(own)[0].kill()
        until(lambda: pool.state(run) in POOLS.ENDED, 120, "the run ends")

    said = (pool.home / "worker.log").read_text()
    assert "COMPLETED" == pool.state(run), said[-3000:]
    tasks = pool.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert set(STAGES[:4]) == {task["name"].split()[0] for task in tasks if task["state_name"] == "Cached"}
    assert [2] == [task["run_count"] for task in tasks if task["name"].startswith("deploy")]
    assert "trying again in 10 s (1 of 1): a port was taken, or the machine was too busy for a server" in " ".join(said.split())


@pytest.fixture
def again(own: Any, quick: tuple[str, ...]) -> dict[str, Any]:
    """The same run up to a proof that has not been made yet: made anew, the smoke run's own would undo its cache."""
    return {"settings": [*POOLS.settings(quick, own.artifacts), "until=deploy", "deploy.max_request_mb=17"]}


def java(own: Any) -> list[Any]:
    """The servers that runs of ours have started."""
    found = []
    for process in own.ours():
        with suppress(psutil.NoSuchProcess):  # it ended since
            found += [process] * (process.name() == "java")
    return found
