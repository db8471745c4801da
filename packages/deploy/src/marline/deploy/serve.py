"""`python -m marline.deploy.serve model=NAME`: serve the newest tuned archive in the foreground until Ctrl-C."""

import base64
import io
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from marline.archive import extract, read_mar, requirements_of
from marline.core import (
    Config,
    Manifest,
    MarlineError,
    RequestError,
    ServerError,
    project_root,
    read_config,
    read_manifest,
    runs,
    verify,
    write_state,
)
from marline.deploy._curl import curl_lines
from marline.deploy._preflight import check_bodies
from marline.deploy._server import Server, serving
from marline.handler import read_signature

LOOK_S = 1.0


def main(words: Sequence[str]) -> int:
    """Exit code 0 after Ctrl-C, 1 when the server died, 2 when there is nothing to serve."""
    try:
        config = read_config(words).config
        tuned = servable(config, project_root() / config.artifacts)
        serve(config, tuned)
    except MarlineError as error:
        print(f"serve: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nserve: stopped")
    return 0


def servable(config: Config, artifacts: Path) -> Manifest:
    """The tune stage of the newest run that may be served: neither of profile smoke nor emulated, or the one named."""
    if config.run is not None:
        return read_manifest(artifacts / config.model / config.run / "tune")
    for run in reversed(runs(artifacts, config.model)):
        if (run / "tune" / "manifest.json").is_file():
            tuned = read_manifest(run / "tune")
            if tuned.facts["profile"] != "smoke" and tuned.facts["accelerator"]["kind"] != "emulated":
                return tuned
    raise RequestError(
        f"no tuned archive of {config.model} in {artifacts} that is neither of profile smoke nor emulated; "
        f"make one with nox -s pipeline -- model={config.model}, or name a run: run=RUN"
    )


def serve(config: Config, tuned: Manifest) -> None:
    """Serve until interrupted; ServerError when the server ends or loses its workers by itself."""
    verify(tuned)
    archive, chosen = tuned.path(tuned.facts["tuned"]["archive"]), tuned.facts["chosen"]
    logs = project_root() / config.artifacts / config.model / "serve-logs"
    with serving(config.deploy, logs, installs=requirements_of(archive) is not None) as server:
        server.load(
            archive,
            config.model,
            batch_size=chosen["batch_size"],
            max_batch_delay_ms=chosen["max_batch_delay_ms"],
            workers=chosen["workers"],
        )
        samples = _samples(tuned, archive, server.folder)
        check_bodies(config.deploy, {sample.name: sample.stat().st_size for sample in samples})
        state = write_state(config.model, _state(server, config, tuned, samples))
        try:
            print(_greeting(server, config.model, tuned, samples, state), flush=True)
            _watch(server)
        finally:
            state.unlink(missing_ok=True)
            state.with_suffix(".curl").unlink(missing_ok=True)


def _samples(tuned: Manifest, archive: Path, folder: Path) -> list[Path]:
    """The payloads of a load test: the run's samples, or the example inside the archive where they are gone."""
    there = tuned.folder.parent / "load" / "sample"
    if there.is_dir():
        return sorted(there.iterdir())
    carried = "model.pt" in read_mar(archive).sizes
    example = read_signature(io.BytesIO(extract(archive, "model.pt"))).get("example") if carried else None
    if example is None:
        raise RequestError(f"{there} is gone and {archive.name} carries no example; make both again with nox -s pipeline")
    file = folder / Path(example["name"]).name
    file.write_bytes(base64.b64decode(example["body"]))
    return [file]


def _state(server: Server, config: Config, tuned: Manifest, samples: Sequence[Path]) -> dict[str, object]:
    return {
        "model": config.model,
        "predictions_url": f"{server.client.inference_url}/predictions/{config.model}",
        "token": server.client.tokens.inference,
        "management_url": server.client.management_url,
        "management_token": server.client.tokens.management,
        "metrics_url": server.client.metrics_url,
        "pid": os.getpid(),
        "payloads": [str(sample.resolve()) for sample in samples],
        "slo_ms": tuned.facts["slo"]["ms"],
        "run": tuned.run,
        "archive_sha256": tuned.facts["tuned"]["sha256"],
    }


def _greeting(server: Server, model: str, tuned: Manifest, samples: Sequence[Path], state: Path) -> str:
    """What is served and one curl line per input kind; the token is read from a 0600 file, not shown."""
    headers = state.with_suffix(".curl")
    headers.touch(mode=0o600)
    headers.write_text(f'header = "Authorization: Bearer {server.client.tokens.inference}"\n')
    chosen, url = tuned.facts["chosen"], f"{server.client.inference_url}/predictions/{model}"
    shared = "request_decoding.py" in read_mar(tuned.path(tuned.facts["tuned"]["archive"])).sizes
    lines = [f"  {line}" for line in curl_lines(url, headers, samples, server.folder, shared=shared)]
    told = f"{model} of run {tuned.run}, batch_size {chosen['batch_size']}, max_batch_delay_ms {chosen['max_batch_delay_ms']}"
    return "\n".join([f"serving {told}, {chosen['workers']} worker(s), on loopback. Ctrl-C stops it.", *lines])


def _watch(server: Server) -> None:
    while True:
        time.sleep(LOOK_S)
        if server.guard.poll() is not None:
            raise ServerError(f"TorchServe ended by itself; read {server.logs}/server.log and console.log")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
