"""`check_only=true`: whether a model can be exported, asked of the untrained model, without a run and without a cache."""

import logging
import tempfile
import time
from pathlib import Path

import marline.export
import marline.load
import marline.wrap
from marline.core import Config, project_root
from marline.handler import handler_of


def check(config: Config) -> int:
    """Print what each method makes of the model; exit code 0 where one of them works, 1 where none does."""
    began = time.monotonic()
    root = project_root()
    logging.disable(logging.WARNING)  # TorchServe's modules tell what they do without
    with tempfile.TemporaryDirectory(prefix="marline-") as work:
        folders = [Path(work, "run", stage) for stage in ("load", "wrap")]
        for folder in folders:
            folder.mkdir(parents=True)
        told = (
            config.load
            if config.load.source.startswith(("torchscript:", "handler:"))
            else config.load.model_copy(update=UNTRAINED)
        )
        loaded = marline.load.load(config.model, told, folders[0])
        wrapped = marline.wrap.wrap(config.model, config.wrap.model_copy(update={"push": False}), loaded, folders[1])
        handler = handler_of(root, config.model, loaded.facts["task"], config.handler)
        print(f"{config.model}: can it be exported? (random weights, nothing is kept)", flush=True)
        if loaded.facts["kind"] == "handler":
            print("  none    no graph is made, the handler brings its model itself: there is nothing to check")
            return 0
        if config.export.method == "none":
            print("  none    no graph is made, the eager model is served: there is nothing to check")
            return 0
        works = False
        for method, problem in marline.export.check(config.export, loaded, wrapped, handler):
            works = works or problem is None
            print(
                f"  {method:<8}{'yes: every case is answered like the eager model' if problem is None else f'no: {problem}'}",
                flush=True,
            )
    print(f"  {'exportable' if works else 'not exportable'}, found in {time.monotonic() - began:.1f} s")
    return 0 if works else 1


UNTRAINED = {"weights": "random", "rename": {}}
