"""`python -m pipelines.schedule model=NAME cron="0 3 * * *"`: serve the pipeline as a scheduled Prefect deployment.

Stays in the foreground and starts a run at each time; a scheduled run measures afresh (`fresh=tune`) unless told otherwise.
For machines that take runs from a server, `pipelines/prefect.yaml` declares the same.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from marline.core import MarlineError, RequestError, known_models, project_root, read_config
from pipelines.ending import ending_with_us
from pipelines.environment import prepare
from pipelines.server import start


def main(words: Sequence[str]) -> int:
    """Exit code 2 for a wrong request; otherwise runs until Ctrl-C."""
    try:
        cron, told = request(words)
        config = read_config(told).config
    except MarlineError as error:
        print(f"schedule: {error}", file=sys.stderr)
        return error.exit_code
    model = next(word.partition("=")[2] for word in told if word.startswith("model="))
    settings = [word for word in told if not word.startswith("model=")]
    if not any(word.startswith("fresh=") for word in settings):
        settings.append("fresh=tune")
    print(f"schedule: {config.model} at {cron!r} with {' '.join(settings)}; Ctrl-C ends it", flush=True)
    try:
        with ending_with_us():
            start(prepare(config.artifacts))()
            _serve(config.model, cron, model, settings)
    except MarlineError as error:
        print(f"schedule: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nschedule: stopped", file=sys.stderr)
    return 0


def _serve(name: str, cron: str, model: str, settings: Sequence[str]) -> None:
    from prefect.schedules import Cron  # noqa: PLC0415 - reads the environment that was prepared

    from pipelines.scheduled import capacity, parameters  # noqa: PLC0415 - as above

    capacity.serve(
        name=name,
        schedule=Cron(cron, timezone="UTC"),
        parameters=parameters(model, settings),
        enforce_parameter_schema=model in known_models(project_root()),  # a source in place of a name is none of its choices
        limit=1,  # two load tests must never share a machine
        print_starting_message=False,
    )


def request(words: Sequence[str]) -> tuple[str, list[str]]:
    """The cron expression, checked, and the other words; RequestError with an example where it is missing or wrong."""
    crons = [word.partition("=")[2] for word in words if word.startswith("cron=")]
    if len(crons) != 1:
        raise RequestError('say when, once: cron="0 3 * * *" is every night at three, UTC')
    try:
        CronSim(crons[0], datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise RequestError(f'cron={crons[0]!r} is no cron expression: {error}; for example cron="0 3 * * *"') from None
    return crons[0], [word for word in words if not word.startswith("cron=")]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
