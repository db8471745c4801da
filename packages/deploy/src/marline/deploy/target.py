"""`python -m marline.deploy.target model=NAME deploy.target=compose`: bring a run that is done to a target.

The newest run that may be served, or the one that `run=` names.
"""

import sys
from collections.abc import Sequence

from marline.core import MarlineError, project_root, read_config
from marline.deploy._targets import deliver
from marline.deploy.serve import servable


def main(words: Sequence[str]) -> int:
    """Exit code 0 when delivered, 1 when it failed, 2 when the request was wrong."""
    try:
        config = read_config(words).config
        artifacts = project_root() / config.artifacts
        tuned = servable(config, artifacts)
        run = artifacts / config.model / config.run if config.run is not None else tuned.folder.parent
        print(deliver(config, run))
    except MarlineError as error:
        print(f"deploy: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
