from pathlib import Path

import pytest

import marline.plan
import marline.tune
from marline.plan import _compiling

LOOPS = [
    Path(str(marline.tune.__file__)).with_name("_twin_loop.py"),
    Path(str(marline.plan.__file__)).with_name("_fleet_loop.py"),
]


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.stem)
def test_a_loop_is_kept_beside_the_code(loop: Path) -> None:
    assert 0 == _compiling.main()

    assert list((loop.parent / "__pycache__").glob(f"{loop.stem}.*.nbc"))
