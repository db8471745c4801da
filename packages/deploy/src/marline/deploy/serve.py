"""`python -m marline.deploy.serve model=NAME[,NAME]`: serve the newest tuned archives in the foreground until Ctrl-C.

It is the one master of its server: it renews tokens, carries out what `nox -s swap` asks for, and looks after the workers.
"""

import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from marline.archive import requirements_of
from marline.core import (
    Config,
    Manifest,
    MarlineError,
    RequestError,
    ServerError,
    project_root,
    read_config,
    read_manifest,
    read_state,
    runs,
)
from marline.deploy._asking import Outcome, Wish, answer, asked
from marline.deploy._restarts import Restarts
from marline.deploy._served import Served, told_of
from marline.deploy._server import Server, serving

LOOK_S = 1.0


def main(words: Sequence[str]) -> int:
    """Exit code 0 after Ctrl-C or SIGTERM, 1 when the server died or no model is up, 2 when there is nothing to serve."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stop in order, like Ctrl-C
    try:
        configs = requested(words)
        refuse_served(configs)
        serve(configs, [servable(config, project_root() / config.artifacts) for config in configs])
    except MarlineError as error:
        print(f"serve: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nserve: stopped")
    return 0


def requested(words: Sequence[str]) -> list[Config]:
    """One configuration for each model of model=A,B; RequestError where they cannot be served by one server."""
    models = next((word.removeprefix("model=") for word in words if word.startswith("model=")), "")
    rest = [word for word in words if not word.startswith("model=")]
    names = list(dict.fromkeys(models.split(",")))
    if len(names) == 1:
        return [read_config(words).config]
    configs = [read_config([f"model={name}", *rest]).config for name in names]
    for config in configs[1:]:
        if config.deploy != configs[0].deploy:
            raise RequestError(
                f"{config.model} and {configs[0].model} are configured for different servers (section deploy); say what holds "
                f"for both on the command line, or serve them one by one"
            )
        if config.run is not None:
            raise RequestError(f"run={config.run} is a run of one model, and {len(names)} are named; serve them one by one")
    return configs


def refuse_served(configs: Sequence[Config]) -> None:
    """RequestError where a server of ours has one of the models: the files by which others find it are of one server."""
    for config in configs:
        state = read_state(config.model)
        if state is None or not Path(state["token_file"]).is_file():  # gone with its server, whoever has its pid now
            continue
        model, pid, port = config.model, state["pid"], urlsplit(state["predictions_url"]).port
        raise RequestError(
            f"{model} is served already, by process {pid} at port {port}; end that with Ctrl-C or kill {pid}, or have it take "
            f"the newest archive with nox -s swap -- model={model}"
        )


def servable(config: Config, artifacts: Path) -> Manifest:
    """The tune stage of the newest run that may be served: not of profile smoke, emulated, or refused; or of the one named."""
    if config.run is not None:
        return read_manifest(artifacts / config.model / config.run / "tune")
    for run in reversed(runs(artifacts, config.model)):
        if (run / "tune" / "manifest.json").is_file():
            tuned = read_manifest(run / "tune")
            real = tuned.facts["profile"] != "smoke" and tuned.facts["accelerator"]["kind"] != "emulated"
            if real and not _is_refused(run):
                return tuned
    raise RequestError(
        f"no tuned archive of {config.model} in {artifacts} that is neither of profile smoke nor emulated, and that no gate "
        f"refused; make one with nox -s pipeline -- model={config.model}, or name a run: run=RUN"
    )


def _is_refused(run: Path) -> bool:
    """Whether the report of a run says that it is worse than `report.fail_if` allows."""
    if not (run / "report" / "manifest.json").is_file():
        return False
    gate = read_manifest(run / "report").facts.get("gate")
    return bool(gate and gate["state"] == "refused")


def serve(configs: Sequence[Config], tuned: Sequence[Manifest]) -> None:
    """Serve until interrupted; ServerError when the server ends or every model is down."""
    first = configs[0]
    name = "+".join(config.model for config in configs)
    logs = project_root() / first.artifacts / first.model / "serve-logs" / ("" if len(configs) == 1 else name)
    installs = any(requirements_of(one.path(one.facts["tuned"]["archive"])) is not None for one in tuned)
    with serving(first.deploy, logs, installs=installs) as server:
        models = [Served(server, config, one) for config, one in zip(configs, tuned, strict=True)]
        try:
            for one in models:
                one.take(one.tuned, 0.0, 0)
                server.client.tokens.followers.append(one.note)
                print(one.greeting(), flush=True)
            _look_after(server, models)
        finally:
            server.client.tokens.followers.clear()
            for one in models:
                one.forget()


def _look_after(server: Server, models: Sequence[Served]) -> None:
    restarts, swapping = Restarts(), threading.Event()
    while True:
        time.sleep(LOOK_S)
        try:
            _judge(restarts, models)
        except ServerError:
            time.sleep(LOOK_S / 2)  # its guard has noticed by then
            if server.alive:
                raise
        if not server.alive:
            raise ServerError(f"TorchServe ended by itself; read {server.logs}/server.log and console.log")
        if models and all(one.down for one in models):
            raise ServerError(f"DOWN: {', '.join(one.model for one in models)}; nothing is left to serve")
        if not swapping.is_set():
            _begin_swap(models, swapping)


def _judge(restarts: Restarts, models: Sequence[Served]) -> None:
    """Call a model DOWN while its workers die again and again, or stay dead; others are served all the same."""
    for one in models:
        why = _why_down(restarts, one)
        if one.down != (why is not None):
            one.down = not one.down
            one.note()
            if one.down:
                said = one.server.traceback(one.model, one.version) or "it printed no traceback"
                print(f"serve: {one.model} is DOWN: {why} (all: {one.server.logs})\n\n{said}\n", file=sys.stderr, flush=True)
            else:
                print(f"serve: {one.model} is UP again", flush=True)


def _why_down(restarts: Restarts, one: Served) -> str | None:
    """What is wrong with the workers of the live version; None where nothing is, or TorchServe is about to start one anew."""
    versions = one.server.client.versions(one.model)
    if one.version in restarts.looping(one.model, versions, time.monotonic()):
        return f"a worker of version {one.version} was started anew 3 times within 60 s"
    ready = any(status.ready for status in versions if status.version == one.version)
    if not ready and one.server.client.gave_up():
        return f"no worker of version {one.version} is ready, and TorchServe does not start them any more"
    return None


def _begin_swap(models: Sequence[Served], swapping: threading.Event) -> None:
    """Carry out the first wish there is, beside the looking after: it may take minutes."""
    for one in models:
        wish = asked(one.model)
        if wish is not None:
            swapping.set()
            threading.Thread(target=_swap, args=(one, wish, swapping), name="marline-swap", daemon=True).start()
            return


def _swap(served: Served, wish: Wish, swapping: threading.Event) -> None:
    try:
        swapped = served.take(read_manifest(Path(wish.stage)), wish.canary_s, wish.keep)
        outcome = Outcome(code=0, said=told_of(swapped, served), id=wish.id)
    except MarlineError as error:
        outcome = Outcome(code=error.exit_code, said=str(error), id=wish.id)
    except Exception as error:  # whatever it was, who asked must hear of it, and the old version serves on
        outcome = Outcome(code=1, said=f"{type(error).__name__}: {error}", id=wish.id)
    print(f"serve: {outcome.said}", file=sys.stderr if outcome.code else sys.stdout, flush=True)
    answer(served.model, outcome)
    swapping.clear()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
