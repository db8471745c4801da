"""What every `python -m marline.<stage>` does: read the request, run, turn our errors into an exit code."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from marline.core._config import Config
from marline.core._errors import MarlineError
from marline.core._layers import project_root, read_config
from marline.core._manifest import Manifest
from marline.core._run import new_run


def main(run_stage: Callable[[Config, Path], Manifest], stage: str, words: Sequence[str] | None = None) -> None:
    """Run one stage in a run folder of its own, on the newest finished stages before it, and exit 0, 1 or 2."""
    try:
        config = read_config(sys.argv[1:] if words is None else words).config
        out = new_run(project_root() / config.artifacts, config.model) / stage
        out.mkdir()
        manifest = run_stage(config, out)
    except MarlineError as error:
        print(f"{stage}: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    print(f"{stage}: {len(manifest.outputs)} files in {manifest.folder} after {manifest.seconds:.1f} s")
