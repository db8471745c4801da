"""`python -m marline.deploy._swap_command model=NAME [run=RUN]`: have the running server take a newer archive, without loss."""

import sys
from collections.abc import Sequence

from marline.archive import requirements_of
from marline.core import MarlineError, RequestError, project_root, read_config, read_state, verify
from marline.deploy._asking import Wish, ask
from marline.deploy._drain import QUEUE_S
from marline.deploy.serve import servable

ALLOWANCE_S = 60.0  # for the golden pairs and the slowest batch of the old version


def main(words: Sequence[str]) -> int:
    """Exit code 0 when the archive is live, 1 when it was refused and the old one serves on, 2 when nothing could be asked."""
    try:
        config = read_config(words).config
        state = read_state(config.model)
        if state is None:
            raise RequestError(f"no server of {config.model} is running; start one with nox -s serve -- model={config.model}")
        tuned = servable(config, project_root() / config.artifacts)
        verify(tuned)
        if requirements_of(tuned.path(tuned.facts["tuned"]["archive"])) and not state["installs"]:
            raise RequestError(
                "this archive has TorchServe install its requirements, and the server that runs does not; start it anew"
            )
        told = config.deploy
        print(f"swap: {config.model} to run {tuned.run}; Ctrl-C leaves what is under way to the server", flush=True)
        wish = Wish(stage=str(tuned.folder), canary_s=told.canary_s, keep=told.keep_versions)
        outcome = ask(config.model, wish, state["pid"], told.ready_s + told.canary_s + QUEUE_S + ALLOWANCE_S)
    except MarlineError as error:
        print(f"swap: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nswap: not waiting any longer", file=sys.stderr)
        return 1
    print(f"swap: {outcome.said}", file=sys.stderr if outcome.code else sys.stdout)
    return outcome.code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
