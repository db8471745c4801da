import time
from itertools import pairwise

import pytest

from marline.deploy._waiting import attempts, within


def test_what_a_call_returns_or_raises_comes_through() -> None:
    def wrong() -> None:
        raise LookupError("mine")

    assert 7 == within(1, lambda: 7)
    with pytest.raises(LookupError, match="mine"):
        within(1, wrong)


def test_a_call_that_takes_longer_is_not_waited_for() -> None:
    began = time.monotonic()

    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        within(0.1, lambda: time.sleep(2))

    assert time.monotonic() - began < 1


def test_pauses_between_tries_grow_and_the_seconds_left_shrink() -> None:
    seen = [(time.monotonic(), left) for left in attempts(4, 10)]

    pauses = [later[0] - earlier[0] for earlier, later in pairwise(seen)]
    assert all(least <= pause < 3 * least for pause, least in zip(pauses, (0.05, 0.1, 0.2), strict=True)), pauses
    assert sorted((left for _, left in seen), reverse=True) == [left for _, left in seen]


def test_there_is_always_one_try_and_none_after_the_deadline() -> None:
    began = time.monotonic()

    assert 1 == len(list(attempts(5, 0.0)))
    assert len(list(attempts(100, 0.5))) < 6
    assert time.monotonic() - began < 1
