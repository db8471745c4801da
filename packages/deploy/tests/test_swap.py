"""Swaps on a server whose rules are TorchServe's and whose workers are made of air; tests/e2e/test_swap.py has real ones."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx2
import pytest

from marline.core import NotReady, ParityError, RequestError, ServerError, StageError
from marline.deploy import Release, Server, drain, roll_back, swap
from marline.deploy._canary import Canary, judge
from marline.handler import Pair

Make = Callable[..., Path]
MODEL = "digits_cnn"


def release(archive: Path, answer: str, **more: Any) -> Release:
    pair = Pair("one.png", b"one", {"output": answer})
    told: dict[str, Any] = {"batch_size": 1, "max_batch_delay_ms": 5, "workers": 1, "atol": 1e-4, "rtol": 1e-3}
    return Release(archive=archive, pairs=[pair], **told, **more)


def load(server: Server, archive: Path) -> str:
    return server.load(archive, MODEL, batch_size=1, max_batch_delay_ms=5, workers=1).version


def test_a_new_version_is_proven_before_it_is_the_default_and_the_old_one_goes_after(
    server: Server, fake: Any, archive: Make
) -> None:
    load(server, archive("1.0"))

    swapped = swap(server, MODEL, release(archive("2.0"), "2.0"))

    assert ("2.0", "1.0", (), None) == (swapped.version, swapped.before, swapped.kept, swapped.warning)
    told = fake.log[1:]
    assert ["POST ", f"PUT {MODEL}/2.0/set-default", f"GET {MODEL}/1.0 behind all", f"DELETE {MODEL}/1.0"] == told
    assert 1 == fake.named[MODEL, "2.0"]
    assert {"2.0"} == fake.models[MODEL].keys()


def test_another_archive_of_the_same_version_gets_a_version_of_its_own(server: Server, fake: Any, archive: Make) -> None:
    load(server, archive("1.0", "old"))
    fake.answer = lambda *_: httpx2.Response(200, json={"output": "right"})

    swapped = swap(server, MODEL, release(archive("1.0", "new"), "right"))

    assert swapped.version.startswith("1.0-")
    assert len("1.0-") + 8 == len(swapped.version)
    assert [swapped.version] == [one.version for one in server.client.versions(MODEL)]


def test_the_same_swap_again_changes_nothing(server: Server, fake: Any, archive: Make) -> None:
    load(server, archive("1.0"))
    new = release(archive("2.0"), "2.0")
    swap(server, MODEL, new)
    fake.log.clear()

    swapped = swap(server, MODEL, new)

    assert ("2.0", None) == (swapped.version, swapped.before)
    assert [f"PUT {MODEL}/2.0/set-default"] == fake.log


def test_a_wrong_answer_removes_the_new_version_and_leaves_the_old_one(server: Server, fake: Any, archive: Make) -> None:
    load(server, archive("1.0"))

    with pytest.raises(ParityError, match=r"(?s)one\.png.*1\.0 was live all the time and still is"):
        swap(server, MODEL, release(archive("2.0"), "what it does not say"))

    assert {"1.0"} == fake.models[MODEL].keys()
    assert "1.0" == fake.defaults[MODEL]
    assert 1 == len([*fake.store.iterdir()])


def test_a_version_that_never_becomes_ready_is_removed_at_its_deadline(server: Server, fake: Any, archive: Make) -> None:
    load(server, archive("1.0"))
    fake.state = lambda _: "UNLOADING"

    with pytest.raises(NotReady, match=r"no ready worker after 1 s.*\n.*1\.0 was live"):
        swap(server, MODEL, release(archive("2.0"), "2.0"))

    assert {"1.0"} == fake.models[MODEL].keys()


def test_a_first_version_that_is_wrong_is_not_left(server: Server, fake: Any, archive: Make) -> None:
    with pytest.raises(ParityError):
        swap(server, MODEL, release(archive("1.0"), "other"))

    assert {} == fake.models


def test_what_a_swap_that_was_killed_left_behind_goes_with_the_next(server: Server, fake: Any, archive: Make) -> None:
    for version in ("1.0", "2.0"):
        load(server, archive(version))

    swap(server, MODEL, release(archive("3.0"), "3.0"))

    assert {"3.0"} == fake.models[MODEL].keys()


def test_a_kept_version_can_be_gone_back_to(server: Server, fake: Any, archive: Make) -> None:
    load(server, archive("1.0"))
    for version in ("2.0", "3.0"):
        swapped = swap(server, MODEL, release(archive(version), version), keep=1)
    assert ("2.0",) == swapped.kept

    back = roll_back(server, MODEL, "2.0")

    assert ("2.0", "3.0") == (back.version, back.before)
    assert "2.0" == fake.defaults[MODEL]
    with pytest.raises(RequestError, match=r"1\.0 is not loaded with a ready worker, (2\.0, 3\.0|3\.0, 2\.0) is"):
        roll_back(server, MODEL, "1.0")


def test_a_drain_waits_until_every_worker_has_answered(server: Server, fake: Any, archive: Make) -> None:
    fake.workers, fake.turns = 2, [0, 0, 0, 1]  # the other one is busy
    server.load(archive("1.0"), MODEL, batch_size=1, max_batch_delay_ms=5, workers=2)

    drain(server.client, MODEL, "1.0")

    assert 4 == fake.asked


def test_of_a_handler_that_does_not_say_its_worker_the_slowest_batch_is_waited_for(
    server: Server, fake: Any, archive: Make
) -> None:
    load(server, archive("1.0"))
    fake.hands["named"] = False

    drain(server.client, MODEL, "1.0")

    assert 1 == fake.asked  # and then responseTimeout, which is 0 here


def test_a_version_that_is_asked_for_by_name_all_the_time_is_not_drained(server: Server, fake: Any, archive: Make) -> None:
    load(server, archive("1.0"))
    load(server, archive("2.0"))

    class Counting(dict[tuple[str, str], int]):
        def items(self) -> Any:
            self[MODEL, "1.0"] = self.get((MODEL, "1.0"), 0) + 1
            return super().items()

    fake.named = Counting()
    with pytest.raises(ServerError, match=r"still asked for by its name after 1 s"):
        drain(server.client, MODEL, "1.0", deadline_s=1)


def test_a_version_that_cannot_be_drained_stays_and_is_told(server: Server, fake: Any, archive: Make) -> None:
    load(server, archive("1.0"))
    fake.models[MODEL]["1.0"]["workers"][0]["pid"] = 0  # READY, and not the one that ever answers
    fake.turns = []
    answers = fake._described

    def hung(version: dict[str, Any], by_handler: bool) -> dict[str, Any]:
        if by_handler:
            raise httpx2.ReadTimeout("silence")
        return dict(answers(version, by_handler))

    fake._described = hung

    swapped = swap(server, MODEL, release(archive("2.0"), "2.0"))

    assert ("1.0",) == swapped.kept
    assert swapped.warning is not None
    assert swapped.warning.startswith("1.0 stays loaded: TorchServe gave no answer")
    assert "2.0" == fake.defaults[MODEL]


def test_the_canary_asks_both_and_says_what_differs(server: Server, fake: Any, archive: Make) -> None:
    load(server, archive("1.0"))

    samples = [(b"one", "image/png"), (b"two", "image/png")]
    swapped = swap(server, MODEL, release(archive("2.0"), "2.0", samples=samples), canary_s=0.1)

    assert swapped.canary is not None
    assert (0, 0) == swapped.canary.errors
    assert (2, 2) == (swapped.canary.differing, swapped.canary.samples)
    assert swapped.canary.requests == fake.named[MODEL, "1.0"] == fake.named[MODEL, "2.0"] - 1  # and the golden pair
    assert swapped.canary.requests >= 7  # fewer pairs say nothing of latency, however short the watch


def test_a_canary_that_fails_where_the_live_one_does_not_is_rolled_back(server: Server, fake: Any, archive: Make) -> None:
    load(server, archive("1.0"))
    fake.answer = lambda version, body: httpx2.Response(
        500 if (version, body) == ("2.0", b"two") else 200, json={"output": version}
    )

    with pytest.raises(StageError, match=r"2\.0 failed \d+ of \d+ requests beside the live version, which failed 0"):
        swap(server, MODEL, release(archive("2.0"), "2.0", samples=[(b"two", "image/png")]), canary_s=0.3)

    assert {"1.0"} == fake.models[MODEL].keys()


def test_a_slow_canary_is_rolled_back(server: Server, fake: Any, archive: Make) -> None:
    load(server, archive("1.0"))

    def answer(version: str, _: bytes) -> httpx2.Response:
        time.sleep(0.2 * (version == "2.0"))
        return httpx2.Response(200, json={"output": version})

    fake.answer = answer
    with pytest.raises(
        StageError, match=r"2\.0 is slow: over 2 times the live version's latency, and 20 ms, in \d+ of \d+ pairs"
    ):
        swap(server, MODEL, release(archive("2.0"), "2.0", samples=[(b"two", "image/png")]), canary_s=4)

    assert {"1.0"} == fake.models[MODEL].keys()


@pytest.mark.parametrize(
    ("requests", "slower", "p99_ms", "refused"),
    [
        (8, 8, (10.0, 90.0), True),
        (8, 7, (10.0, 90.0), False),  # one in 28 by chance
        (6, 6, (10.0, 90.0), False),  # one in 64
        (30, 22, (10.0, 90.0), True),
        (30, 21, (10.0, 90.0), False),
        (100, 100, (10.0, 20.0), False),
        (100, 2, (10.0, 20.1), True),
        (100, 2, (50.0, 99.0), False),
    ],
)
def test_a_canary_is_slow_where_chance_is_no_reason(
    requests: int, slower: int, p99_ms: tuple[float, float], refused: bool
) -> None:
    told: dict[str, Any] = {"errors": (0, 0), "p50_ms": (5.0, 21.0), "differing": 0, "samples": 1}
    seen = Canary(requests=requests, slower=slower, p99_ms=p99_ms, **told)

    with pytest.raises(StageError, match=r"2\.0 is slow") if refused else nullcontext():
        judge(MODEL, "2.0", seen)


def test_a_canary_without_samples_is_refused(server: Server, fake: Any, archive: Make) -> None:
    load(server, archive("1.0"))

    with pytest.raises(StageError, match=r"no samples to watch a new version with; write deploy.canary_s=0"):
        swap(server, MODEL, release(archive("2.0"), "2.0"), canary_s=1)


def test_unload_takes_the_default_last_and_does_it_twice_as_well_as_once(server: Server, fake: Any, archive: Make) -> None:
    for version in ("1.0", "2.0", "3.0"):
        load(server, archive(version))
    fake.log.clear()

    server.unload(MODEL)
    server.unload(MODEL)

    assert f"DELETE {MODEL}/1.0" == fake.log[-1]
    assert {} == fake.models
    assert [] == [*fake.store.iterdir()]


def test_loading_what_is_loaded_is_no_error_unless_it_is_asked_for_otherwise(server: Server, fake: Any, archive: Make) -> None:
    first = archive("1.0")
    load(server, first)

    assert "1.0" == load(server, first)
    assert 1 == fake.log.count("POST ")
    with pytest.raises(ServerError, match=r"serves digits_cnn 1\.0 with batchSize 1 .*asked were 8 and 5: unload it before"):
        server.load(first, MODEL, batch_size=8, max_batch_delay_ms=5, workers=1)


def test_the_number_of_workers_is_the_one_that_is_asked_for(server: Server, fake: Any, archive: Make) -> None:
    """An archive's own number comes before that of its registration."""
    status = server.load(archive("1.0"), MODEL, batch_size=1, max_batch_delay_ms=5, workers=3)

    assert 3 == status.ready
    assert 2 == server.scale(MODEL, 2).ready
    assert [f"PUT {MODEL}/1.0", f"PUT {MODEL}"] == fake.log[1:]
