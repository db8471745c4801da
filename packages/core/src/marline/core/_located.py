"""Files that installed Python packages bring along, named without a path of this machine."""

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "package:"


def located(path: str) -> Path:
    """The file or folder that a setting names: `package:NAME/PATH` lies inside the installed package NAME.

    The package is found, not imported. Where there is none the answer is a path that does not exist.
    """
    if not path.startswith(PACKAGE):
        return Path(path)
    name, _, rest = path.removeprefix(PACKAGE).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    return Path(places[0] if places else f"{PACKAGE}{name}", rest)
