"""Models that come and go while others use them."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from marline.core import ServerError
from marline.deploy import Server, Status

Obey = Callable[..., Any]
Until = Callable[..., float]


@pytest.mark.faults(
    "F14", "unregister under load", "queued requests end within the client's deadline; later ones 404", seconds=20
)
def test_f14_requests_to_a_model_that_is_taken_away_end(obey: Obey, until: Until, tmp_path: Path) -> None:
    model, begun = obey("away"), tmp_path / "begun"
    orders = [{"n": n, "sleep_s": 1, "write": str(begun)} for n in range(10)]

    with ThreadPoolExecutor(1) as asking:
        asked = asking.submit(model.ask_all, orders, 5)
        until(begun.exists, 5, "the first has begun")
        began = time.monotonic()
        model.server.unload("away")
        unloaded_s = time.monotonic() - began
        answers = asked.result()

    assert max(answer.seconds for answer in answers) < 6
    assert unloaded_s < 5
    assert any(answer.status != 200 for answer in answers)
    assert [404] * 3 == [answer.status for answer in model.ask_all([{"n": 1}] * 3)]


@pytest.mark.faults("F15", "a name that exists is registered", "the 409 is shown; what was there goes on serving", seconds=20)
def test_f15_a_name_that_is_taken_is_refused_with_its_409(obey: Obey, server: Server) -> None:
    model = obey("taken")
    worker, stored = model.worker.pid, next(file.name for file in (server.folder / "store").iterdir() if "taken" in file.name)

    with pytest.raises(
        ServerError, match=r"(?s)answers 409 to POST /models: .*Model version 1.0 is already registered for .*taken"
    ):
        server.client.register(stored, "taken", batch_size=4, max_batch_delay_ms=10, workers=1)

    assert model.serves()
    assert (worker, 1) == (model.worker.pid, model.status.batch_size)


@pytest.mark.faults(
    "F15", "two deploys of one name at once", "one wins, the other is shown a 409; no half-registered model", seconds=20
)
def test_f15_of_two_deploys_at_once_one_wins(server: Server, make: Callable[..., Path]) -> None:
    archives = [make("twice", {"most": most}) for most in (1, 2)]  # of one name and version

    def load(archive: Path) -> Status | ServerError:
        try:
            return server.load(archive, "twice", batch_size=1, max_batch_delay_ms=10, workers=1)
        except ServerError as error:
            return error

    with ThreadPoolExecutor(2) as loaders:
        ended = list(loaders.map(load, archives))
    try:
        (lost,) = [one for one in ended if isinstance(one, ServerError)]
        (won,) = [one for one in ended if isinstance(one, Status)]
        assert "answers 409 to POST /models" in str(lost)
        assert 1 == won.ready
        assert won == server.client.describe("twice")
        assert 200 == server.client.predict("twice", b'{"n": 1}', "application/json").status
    finally:
        server.unload("twice")
