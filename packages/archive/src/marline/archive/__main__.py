"""`python -m marline.archive model=NAME`: this stage alone; `inspect=FILE` looks into any archive instead."""

import sys
from pathlib import Path

from marline.archive import archive, describe
from marline.core import MarlineError, accelerator_of, main, newest, project_root
from marline.handler import handler_of

if sys.argv[1:] and sys.argv[1].startswith("inspect="):
    try:
        print(describe(Path(sys.argv[1].removeprefix("inspect="))))
    except MarlineError as error:
        print(f"archive: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    raise SystemExit(0)

main(
    lambda config, out: archive(
        config.model,
        config.archive,
        newest(project_root() / config.artifacts, config.model, "wrap"),
        newest(project_root() / config.artifacts, config.model, "export"),
        handler_of(project_root(), config.model, config.load.task, config.archive.handler),
        accelerator_of(config, project_root()).device,
        out,
    ),
    "archive",
)
