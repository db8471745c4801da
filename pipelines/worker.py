"""`python -m pipelines.worker [pool=marline] [artifacts=artifacts]`: Prefect's own process worker, for one machine's runs.

It is `prefect worker start` with what our runs need: one run at a time, Prefect's home beside the runs it caches, heartbeats.
A run whose worker is killed is ended within seconds and says so itself; one whose whole machine is gone falls silent, and an
automation of Prefect's marks it.
"""

import os
import sys
from collections.abc import Sequence
from datetime import timedelta

from marline.core import MarlineError, RequestError, project_root
from pipelines.ending import ending_with_us
from pipelines.environment import prepare

HEARTBEAT_S = 30  # the shortest that Prefect has
GRACE_S = 5.0  # for a run whose worker was killed, to close what it opened and to say how it ended
SILENT_S = 3 * HEARTBEAT_S
ENDS = ("Completed", "Failed", "Cancelled", "Crashed")


def main(words: Sequence[str]) -> int:
    """Runs until Ctrl-C; exit code 2 for a wrong request."""
    try:
        told = request(words)
        prepare(told["artifacts"])
    except MarlineError as error:
        print(f"worker: {error}", file=sys.stderr)
        return error.exit_code
    os.environ |= {"MARLINE_ROOT": str(project_root()), "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S)}
    from prefect.cli import app  # noqa: PLC0415 - reads the environment that was prepared

    with ending_with_us(GRACE_S):
        mark_silent_runs()
        sys.argv[1:] = ["worker", "start", "--pool", told["pool"], "--type", "process", "--limit", "1"]
        app()
    return 0


def request(words: Sequence[str]) -> dict[str, str]:
    """The pool and the folder of runs; RequestError also where no server is named."""
    told = {"pool": "marline", "artifacts": "artifacts"}
    for word in words:
        key, _, value = word.partition("=")
        if key not in told or not value:
            raise RequestError(f"{word!r} is not understood; write pool=NAME or artifacts=FOLDER, for example pool=marline")
        told[key] = value
    if "PREFECT_API_URL" not in os.environ:
        raise RequestError("which server? Set PREFECT_API_URL=http://HOST:4200/api; nox -s prefect starts one")
    return told


def mark_silent_runs() -> None:
    """Have the server mark runs that fall silent; once for all workers, as an automation one can see and change on its page."""
    from prefect import get_client  # noqa: PLC0415 - reads the environment that was prepared
    from prefect.automations import (  # noqa: PLC0415 - as above
        AutomationCore,
        ChangeFlowRunState,
        EventTrigger,
        Posture,
        ResourceSpecification,
    )
    from prefect.client.schemas.objects import StateType  # noqa: PLC0415 - as above

    name, beat = "marline: runs that fell silent", "prefect.flow-run.heartbeat"
    silence = EventTrigger(
        after={beat},
        expect={beat, *(f"prefect.flow-run.{end}" for end in ENDS)},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENT_S),
    )
    said = f"nothing was heard of it for {SILENT_S} s: its machine, or its process, is gone"
    crashed = ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=said, force=False)
    with get_client(sync_client=True) as client:
        if not client.read_automations_by_name(name):
            client.create_automation(AutomationCore(name=name, trigger=silence, actions=[crashed]))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
