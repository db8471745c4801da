"""How a long stage says how far it is, without knowing who listens."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[float, str], None]

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


def progress(done: float, text: str) -> None:
    """Say that the share `done` (0 to 1) of the running stage is done, and what is being done now."""
    listener = _listener.get()
    if listener is not None:
        listener(done, text)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send all progress made inside to `listener`."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
