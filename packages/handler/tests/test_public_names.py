from pathlib import Path

import marline.handler

MODULES = {file.stem for file in (Path(__file__).parents[1] / "src" / "marline" / "handler").glob("*.py")}


def test_public_names() -> None:
    exposed = {name for name in vars(marline.handler) if not name.startswith("_")}

    assert set(marline.handler.__all__) == exposed - MODULES  # tests import modules of the folder, which binds their names
