"""For every test of every package."""

import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).parent

# A shell that starts us in the background ignores Ctrl-C for us, and what we start inherits that.
# Tests interrupt what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Under xdist, tests that share costly fixtures stay together: those of a package, and all that start a server.

    The latter begin first, as they take longest, and never run beside each other.
    """
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    if item.get_closest_marker("e2e") is not None:
        return "e2e"
    place = item.path.relative_to(ROOT).parts
    return place[1]  # packages/NAME/..., tests/FILE
