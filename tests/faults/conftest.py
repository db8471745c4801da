"""Faults, injected into the real thing: `nox -s faults -- group=deploy`, `only=F07`, `times=3`. A folder here is a group.

The marker `faults` is a test's row in the table; its seconds are the budget, after which the test fails.
"""

from collections.abc import Callable

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each fault has its own deadline; what it shares with others, a running server, is not counted."""
    for item in items:
        marker = item.get_closest_marker("faults")
        if marker is not None:
            item.add_marker(pytest.mark.timeout(marker.kwargs["seconds"], func_only=True))


@pytest.fixture(autouse=True)
def row(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """What the table says of this test; `pipelines/faults.py` reads it from the JUnit file."""
    marker = request.node.get_closest_marker("faults")
    assert marker is not None, (
        f"{request.node.nodeid} is no fault: give it @pytest.mark.faults(NUMBER, WHAT, EXPECTED, seconds=)"
    )
    number, what, expected = marker.args
    told = {"fault": number, "group": request.path.parent.name, "what": what, "expected": expected, **marker.kwargs}
    for key, value in told.items():
        record_property(key, value)
