"""Run as a script, in a process that can be ended: download files of one hub repository into the hub's own cache.

    python _fetch.py ORG/NAME REVISION PATTERN ...

Prints the snapshot's folder and the names of all files of the repository as JSON. Exit 1 with one line about why not.
"""

import json
import sys
from pathlib import Path

from huggingface_hub import get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError


def main(repository: str, revision: str, *patterns: str) -> None:
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns)))
    except Exception as error:  # whatever a network may do is one line to the caller
        print(type(error).__name__, " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(1) from None
    try:
        files = [file.path for file in get_cached_repo_tree(repository, revision=folder.name)]
    except CachedRepoTreeNotFoundError:  # an older cache: what is there is all we know of
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    print(json.dumps({"folder": str(folder), "files": files}))


if __name__ == "__main__":
    main(*sys.argv[1:])
