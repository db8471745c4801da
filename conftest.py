"""For every test of every package."""

import os
import signal
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# A shell that starts us in the background ignores Ctrl-C for us, and what we start inherits that.
# Tests interrupt what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# More processes than cores, each with OpenMP's threads: one that waits for another by spinning holds the core it waits for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


ALONE = tuple(  # start servers, but need no run of the others
    f"tests/e2e/test_{name}.py"
    for name in (
        *("archive", "clients", "custom_service", "from_scratch", "models", "new_model", "observation"),
        "torchserve_contract",
    )
)


class Together(LoadScopeScheduling):
    """Keeps on one worker what shares costly fixtures: the tests of a package, and all in `tests/e2e` but those above."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file in ALONE else "/".join(file.split("/")[:2])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start a server begin first: they take longest, and the rest can run beside them."""
    items.sort(key=lambda item: item.get_closest_marker("e2e") is None)
