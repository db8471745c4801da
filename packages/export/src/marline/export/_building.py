"""`python -m marline.export._building`: builds the C++ half of every export's proof, which the first export would wait for."""

import sys
import tempfile
from pathlib import Path

from marline.export._elsewhere import cpp_program


def main() -> int:
    """Leave the program in the user's cache; exports do without one, and say so, so that a failure is none of the caller's."""
    with tempfile.TemporaryDirectory() as nowhere:
        built = cpp_program(Path(nowhere))
    if isinstance(built, str):
        print(f"building: {built}; exports will be proven in Python alone", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
