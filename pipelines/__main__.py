"""`python -m pipelines model=NAME key=value ...`: exit code 0 done, 1 a stage failed, 2 the request was wrong.

`model=A,B` does the same for each: 1 where one failed, while the others go on.
"""

import gc
import sys

from marline.core import Config, MarlineError, accelerator_of, project_root, read_config
from pipelines.environment import prepare

RARELY = 50_000, 20, 100  # what we import stays; looking for garbage in it meanwhile took a tenth of the time


def main(words: list[str]) -> int:
    """Refuse a wrong request at once; only then import what is heavy, and run."""
    try:
        every = each(words)
        configs = [read_config(told).config for told in every]
        for config in configs:
            accelerator = accelerator_of(config, project_root())
            if config.report.fail_if is not None:
                from pipelines.gate import Gate  # noqa: PLC0415 - draws and computes: only where there is a baseline to be found

                Gate.of(config, accelerator)
        home = prepare(config.artifacts)
    except MarlineError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return error.exit_code

    from pipelines.ending import ending_with_us, interruptible  # noqa: PLC0415 - a wrong request waits for nothing heavy

    if config.check_only:
        return max(_check(config) for config in configs)
    from pipelines.server import start  # noqa: PLC0415 - as above

    gc.set_threshold(*RARELY)
    try:
        with ending_with_us(), interruptible():
            wait = start(home)
            if len(configs) > 1:
                from pipelines.several import several  # noqa: PLC0415 - reads the environment that was prepared

                wait()
                return several(configs, every)
            from pipelines.lifecycle import lifecycle  # noqa: PLC0415 - as above

            wait()
            lifecycle(_model(words), [word for word in words if not word.startswith("model=")])
    except MarlineError as error:
        print(f"\npipeline: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\npipeline: interrupted; finished stages are kept and the next run goes on from there", file=sys.stderr)
        return 130
    return 0


def each(words: list[str]) -> list[list[str]]:
    """The words of each model of `model=A,B`."""
    others = [word for word in words if not word.startswith("model=")]
    names = dict.fromkeys(_model(words).split(","))
    return [[f"model={name}", *others] for name in names] if len(names) > 1 else [words]


def _model(words: list[str]) -> str:
    return next((word.partition("=")[2] for word in words if word.startswith("model=")), "")


def _check(config: Config) -> int:
    from pipelines.check import check  # noqa: PLC0415 - imports torch

    try:
        return check(config)
    except MarlineError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
