"""An interrupt while something heavy is imported: libraries make anything of it."""

import os
import signal
import sys
import threading
import time

import pytest

from pipelines.ending import interruptible
from pipelines.page import harmless


def interrupted() -> None:
    """What a half imported library does."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        raise ImportError("cannot import name 'half' from partially initialized module") from None


def test_whatever_follows_from_an_interrupt_is_that_interrupt() -> None:
    before = signal.getsignal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), interruptible():
        interrupted()

    assert before is signal.getsignal(signal.SIGINT)


class Deleted:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)


def deleted() -> None:
    """An interrupt comes as an object is deleted, and Python can only say that it ignored it."""
    Deleted()
    time.sleep(30)


def test_an_interrupt_while_an_object_is_deleted_is_not_lost() -> None:
    before = sys.unraisablehook

    with pytest.raises(KeyboardInterrupt), interruptible():
        deleted()

    assert before is sys.unraisablehook


def test_an_interrupt_is_no_failure_of_prefect_s_page() -> None:
    before = signal.getsignal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), interruptible(), harmless():
        interrupted()

    assert before is signal.getsignal(signal.SIGINT)


def test_in_another_thread_a_page_that_fails_is_harmless() -> None:
    def fail() -> None:
        with harmless():
            raise RuntimeError("Prefect's server is gone")

    thread = threading.Thread(target=fail)  # what it raises fails the test
    thread.start()
    thread.join(10)

    assert not thread.is_alive()


def test_without_an_interrupt_what_fails_is_told_as_it_is() -> None:
    with pytest.raises(ImportError, match="no module"), interruptible():
        raise ImportError("no module")
