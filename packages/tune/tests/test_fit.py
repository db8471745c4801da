"""How many workers memory has room for, on a server whose memory is a number."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from marline.core import WorkerError
from marline.deploy import Server
from marline.tune._burst import TooLarge
from marline.tune._fit import largest_batches


@dataclass
class Limited:
    """Holds so many items at once, and one model; keeps what was asked."""

    room: int
    why: str = "torch.OutOfMemoryError: CUDA out of memory"
    asked: list[tuple[int, int]] = field(default_factory=list)
    loaded: bool = False

    def load(self, _archive: Path, _model: str, *, batch_size: int, workers: int, **_: Any) -> None:
        assert not self.loaded
        self.asked.append((workers, batch_size))
        if workers * batch_size > self.room:
            raise WorkerError(f"the worker cannot load it:\n\n{self.why}")
        self.loaded = True

    def unload(self, _model: str) -> None:
        self.loaded = False


def found(server: Limited, *workers: int) -> dict[int, int]:
    """The largest of batches of 1 to 16 by number of workers."""
    return largest_batches(cast("Server", server), Path("any.mar"), "any", (1, 4, 8, 16), workers)


def test_one_worker_alone_is_asked_nothing_as_its_service_curve_knows() -> None:
    server = Limited(room=16)

    assert {} == found(server, 1)
    assert [] == server.asked


def test_more_workers_have_room_for_smaller_batches_and_what_fewer_had_no_room_for_is_not_tried() -> None:
    server = Limited(room=20)

    assert {2: 8, 4: 4} == found(server, 4, 1, 2)
    assert [(2, 16), (2, 8), (4, 8), (4, 4)] == server.asked
    assert not server.loaded


def test_numbers_of_workers_without_any_room_are_told_and_the_fewest_must_have_some() -> None:
    assert {2: 0} == found(Limited(room=1), 1, 2)
    with pytest.raises(TooLarge, match=r"memory does not hold any in 2 workers; lower tune\.workers"):
        found(Limited(room=1), 2, 4)


def test_another_failure_is_not_taken_for_memory() -> None:
    with pytest.raises(WorkerError, match="No module named"):
        found(Limited(room=1, why="ModuleNotFoundError: No module named 'a'"), 1, 2)
