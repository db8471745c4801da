import subprocess
import sys

import pytest
from rich.console import Console

from marline.deploy.status import Row, _row, table

TOLD = {
    "modelName": "digits",
    "modelVersion": "1.0",
    "minWorkers": 2,
    "batchSize": 4,
    "maxBatchDelay": 5,
    "workers": [{"status": "READY", "pid": -1}, {"status": "UNLOADING", "pid": -1}],
    "jobQueueStatus": {"remainingCapacity": 7, "pendingRequests": 3},
}


def test_a_row_says_how_many_workers_answer_and_how_full_the_queue_is() -> None:
    row = _row(TOLD, "run", "here", default=True)

    assert ("1 of 2 ready", "3 of 10", "4, 5 ms", "1.0") == (row.workers, row.queue, row.batch, row.version)
    assert not row.good
    assert "1.0, kept" == _row(TOLD, "run", "here", default=False).version


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"minWorkers": 1}, True),
        ({"minWorkers": 0, "workers": []}, False),
        ({"minWorkers": 1, "jobQueueStatus": {"remainingCapacity": 0, "pendingRequests": 10}}, False),
    ],
)
def test_a_model_without_workers_or_with_a_full_queue_is_not_good(changed: dict[str, object], expected: bool) -> None:
    assert expected == _row({**TOLD, **changed}, "run", "here", default=True).good


def test_the_table_shows_text_as_it_is() -> None:
    console = Console(width=120)
    with console.capture() as shown:
        console.print(table([Row(model="digits", server="[red]here[/red]")]))

    assert "[red]here[/red]" in shown.get()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=nobody", "status=true"], "no server of nobody runs here; start one with nox -s serve -- model=nobody"),
        (["tune.slo_ms=1"], "tune.slo_ms=1 has no effect on status=true"),
    ],
)
def test_what_cannot_be_shown_is_a_wrong_request(words: list[str], expected: str) -> None:
    command = [sys.executable, "-m", "marline.deploy.status", *words]

    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert (2, "") == (refused.returncode, refused.stdout)
    assert expected in refused.stderr
