"""For every test of every package."""

import gc
import os
import signal
from typing import Any

import pytest
from hypothesis.strategies import text
from xdist.scheduler import LoadScopeScheduling

# A shell that starts us in the background ignores Ctrl-C for us, and what we start inherits that.
# Tests interrupt what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# More processes than cores, each with OpenMP's threads: one that waits for another by spinning holds the core it waits for.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

gc.disable()  # until everything is imported


# Runs on one server of Prefect's.
OWN_RUNS = tuple(f"tests/e2e/test_{name}.py" for name in ("new_model", "models"))
# Read what the smoke run left: a copy of it does.
OF_A_COPY = tuple(f"tests/e2e/test_{name}.py" for name in ("digits", "report", "report_figures", "serve", "swap", "targets"))
ALONE = tuple(  # start servers, but need no run of the others
    f"tests/e2e/test_{name}.py" for name in ("archive", "clients", "custom_service", "observation", "torchserve_contract")
)


LONG = (  # the longest without a server: no last ones
    *("tests/test_exports.py", "packages/export/", "tests/test_readmes.py"),
    *("packages/wrap/", "tests/test_repositories.py", "tests/test_new_model.py"),
)


class Together(LoadScopeScheduling):
    """Keeps on one worker what shares costly fixtures: a package, and of `tests/e2e` each of the groups above."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file in OWN_RUNS:
            return "own runs"
        if file in OF_A_COPY:
            return "of a copy"
        return file if file in ALONE else "/".join(file.split("/")[:2])


@pytest.fixture(scope="session", autouse=True)
def characters() -> None:
    """On a machine's first text hypothesis makes a table of Unicode, for seconds that it would charge a test with."""
    text().validate()


def pytest_collection_finish() -> None:
    """All that tests import stays: from here on nobody looks for garbage in it."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first: the smoke run and what goes on from it, then other models; copies come late."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[int, int]:
    file = item.nodeid.partition("::")[0]
    if item.get_closest_marker("e2e") is None:
        return 4, int(not file.startswith(LONG))
    if file in OWN_RUNS:
        return 1, OWN_RUNS.index(file)
    return 2 if file in ALONE else 3 if file in OF_A_COPY else 0, 0
