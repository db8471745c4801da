"""`python -m pipelines.server [port=4200]`: Prefect's own server and page, with its database in artifacts/.prefect."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from marline.core import MarlineError, RequestError
from pipelines.environment import prepare


def _become(port: int) -> NoReturn:
    words = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(sys.executable, [sys.executable, *words])  # noqa: S606 - signals must reach the server itself


def main(words: Sequence[str]) -> int:
    """Becomes Prefect's server; exit code 2 for a wrong request."""
    try:
        port = port_of(words)
        prepare("artifacts")
    except MarlineError as error:
        print(f"prefect: {error}", file=sys.stderr)
        return error.exit_code
    print(f"prefect: http://127.0.0.1:{port}; runs use it with PREFECT_API_URL=http://127.0.0.1:{port}/api", flush=True)
    _become(port)


def port_of(words: Sequence[str]) -> int:
    """The port asked for, 4200 by default."""
    if not words:
        return 4200
    key, _, value = words[0].partition("=")
    if len(words) > 1 or key != "port" or not value.isdecimal() or not 0 < int(value) < 65536:
        raise RequestError(f"{' '.join(words)!r} is not understood; the only setting is port=NUMBER, for example port=4200")
    return int(value)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
