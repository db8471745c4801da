"""`python -m pipelines.fetch model=NAME artifacts_url=URL [run=RUN] [stage=report]`: a finished run, from the store to here.

It lies in `artifacts/` as if it had been made here: its report is opened, its archive served. Exit code 0 done, 1 the store
does not answer or is damaged, 2 the request was wrong.
"""

import sys
from collections.abc import Sequence

from marline.core import STAGES, MarlineError, RequestError, project_root, read_config, read_manifest, verify
from pipelines.store import of_run, opened

SHOWN = 5


def main(words: Sequence[str]) -> int:
    """Bring the newest run, or the one named; stages that are here already stay as they are."""
    try:
        _fetch(words)
    except MarlineError as error:
        print(f"fetch: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nfetch: interrupted; stages that are here are whole, and the same command goes on from there", file=sys.stderr)
        return 130
    return 0


def _fetch(words: Sequence[str]) -> None:
    asked = [word.partition("=")[2] for word in words if word.startswith("stage=")] or list(STAGES)
    if not set(asked) <= set(STAGES):
        raise RequestError(f"stage={asked[-1]} is not known; known are {', '.join(STAGES)}")
    config = read_config([word for word in words if not word.startswith("stage=")]).config
    store = opened(config.artifacts_url, to_write=False)
    if store is None:
        raise RequestError("artifacts_url is not set: say where from, for example artifacts_url=s3://team-models/marline")
    kept = store.runs(config.model)
    run = config.run or (kept or [""])[-1]
    if run not in kept:
        there = (
            f"the newest are {', '.join(kept[-SHOWN:])}" if kept else "there is none; a run with this artifacts_url leaves one"
        )
        raise RequestError(f"no finished run{f' {run}' if run else ''} of {config.model} in {store.url}: {there}")
    folder = project_root() / config.artifacts / config.model / run
    for stage in STAGES:  # the report last: a run that has one is taken for complete
        if stage in asked and (folder / stage).exists():
            verify(read_manifest(folder / stage))
        elif stage in asked and store.fetch(of_run(config.model, run, stage), folder / stage, config.model) is None:
            raise RequestError(f"{of_run(config.model, run, stage)} is not in {store.url}; take another run with run=RUN")
    print(f"fetch: {', '.join(asked)} of {config.model}, run {run}, in {folder}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
