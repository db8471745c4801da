import subprocess
import sys
from pathlib import Path

import marline.handler

MODULES = {file.stem for file in (Path(__file__).parents[1] / "src" / "marline" / "handler").glob("*.py")}


def test_public_names() -> None:
    exposed = {name for name in vars(marline.handler) if not name.startswith("_")} - {"Any", "TYPE_CHECKING", "import_module"}

    # tests import modules of the folder, which binds their names
    assert set(marline.handler.__all__) == exposed - MODULES | set(marline.handler._LATER)
    assert all(getattr(marline.handler, name) is not None for name in marline.handler.__all__)


def test_torch_is_imported_when_it_is_asked_for() -> None:
    code = "import sys, marline.deploy.serve; print('torch' in sys.modules); marline.deploy.serve; import marline.handler as h"
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}; h.collate; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert ["False", "True"] == ran.stdout.split()
