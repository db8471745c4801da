"""An interrupt while something heavy is imported: libraries make anything of it."""

import os
import signal
import time

import pytest

from pipelines.ending import interruptible


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


def test_without_an_interrupt_what_fails_is_told_as_it_is() -> None:
    with pytest.raises(ImportError, match="no module"), interruptible():
        raise ImportError("no module")
