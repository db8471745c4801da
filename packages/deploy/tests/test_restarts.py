from marline.deploy import Status
from marline.deploy._restarts import Restarts


def at(*pids: int, version: str = "1.0") -> list[Status]:
    ids = tuple(str(9000 + place) for place in range(len(pids)))
    return [Status(1, 5, tuple((pid, "READY") for pid in pids), 0, version=version, worker_ids=ids)]


def looping(*seen: tuple[float, list[Status]]) -> list[list[str]]:
    restarts = Restarts()
    return [restarts.looping("digits_cnn", statuses, instant) for instant, statuses in seen]


def test_three_restarts_of_a_worker_within_a_minute_are_a_crash_loop() -> None:
    assert [[], [], [], ["1.0"]] == looping((0, at(1)), (10, at(2)), (20, at(3)), (59, at(4)))


def test_two_restarts_and_slow_ones_are_none() -> None:
    assert [[], [], [], []] == looping((0, at(1)), (10, at(2)), (20, at(3)), (81, at(4)))


def test_restarts_of_different_workers_do_not_add_up() -> None:
    assert [[], [], [], []] == looping((0, at(1, 5)), (1, at(2, 5)), (2, at(2, 6)), (3, at(3, 6)))


def test_a_worker_that_is_between_two_lives_has_no_process() -> None:
    assert [[], [], [], [], ["1.0"]] == looping((0, at(1)), (1, at(-1)), (2, at(2)), (3, at(3)), (4, at(4)))


def test_it_is_over_when_a_minute_has_gone_by_without_a_restart() -> None:
    assert [] == looping((0, at(1)), (1, at(2)), (2, at(3)), (3, at(4)), (64, at(4)))[-1]


def test_a_new_version_and_more_workers_are_no_restarts() -> None:
    both = [*at(1), *at(7, 8, 9, version="2.0")]

    assert [[], [], []] == looping((0, at(1)), (1, both), (2, at(7, 8, 9, version="2.0")))
