"""`python -m marline.archive model=NAME`: this stage alone; `inspect=FILE` looks into any archive instead."""

import sys
from pathlib import Path

from marline.archive import archive, describe
from marline.core import Config, Manifest, MarlineError, accelerator_of, main, newest, project_root
from marline.handler import handler_of

if sys.argv[1:] and sys.argv[1].startswith("inspect="):
    try:
        print(describe(Path(sys.argv[1].removeprefix("inspect="))))
    except MarlineError as error:
        print(f"archive: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    raise SystemExit(0)


def _archive_newest(config: Config, out: Path) -> Manifest:
    root = project_root()
    wrapped, exported = (newest(root / config.artifacts, config.model, stage) for stage in ("wrap", "export"))
    handler = handler_of(root, config.model, wrapped.facts["task"], config.handler)
    device = accelerator_of(config, root).device
    return archive(config.model, config.archive, wrapped, exported, handler, device, out)


main(_archive_newest, "archive")
