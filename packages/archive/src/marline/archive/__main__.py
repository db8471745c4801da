"""`python -m marline.archive model=NAME`: this stage alone.

`model_name=NAME model_file=FILE ...` builds an archive from any files instead, `inspect=FILE` looks into one.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from marline.archive import archive, build, describe
from marline.archive._words import parameters
from marline.core import Config, Manifest, MarlineError, RequestError, accelerator_of, main, newest, project_root
from marline.handler import handler_of


def _archive_newest(config: Config, out: Path) -> Manifest:
    root = project_root()
    wrapped, exported = (newest(root / config.artifacts, config.model, stage) for stage in ("wrap", "export"))
    handler = handler_of(root, config.model, wrapped.facts["task"], config.handler)
    device = accelerator_of(config, root).device
    return archive(config.model, config.archive, wrapped, exported, handler, device, out)


def _by_hand(words: Sequence[str]) -> int:
    try:
        if any(word.startswith("inspect=") for word in words):
            if len(words) > 1:
                raise RequestError(f"inspect=FILE goes alone, not with {' '.join(words[1:])}")
            print(describe(Path(words[0].removeprefix("inspect="))))
            return 0
        built = build(**parameters(words))
    except MarlineError as error:
        print(f"archive: {error}", file=sys.stderr)
        return error.exit_code
    for warning in built.warnings:
        print(f"archive: warning: {warning}", file=sys.stderr)
    print(f"archive: {built.file} sha256 {built.sha256}")
    return 0


if not sys.argv[1:] or any(word.startswith("model=") for word in sys.argv[1:]):
    main(_archive_newest, "archive")
else:
    raise SystemExit(_by_hand(sys.argv[1:]))
