"""Stage 5: prove an archive on a real TorchServe, and leave the recipe to serve it again."""

import json
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from marline.archive import requirements_of
from marline.core import DeployConfig, Manifest, ParityError, StageError, progress, seal, verify, write_json
from marline.deploy._client import Client, content_type_of
from marline.deploy._java import java_version
from marline.deploy._preflight import check_bodies
from marline.deploy._server import serving
from marline.deploy._settings import java_home_of
from marline.handler import Pair, difference, read_golden


def deploy(model: str, config: DeployConfig, exported: Manifest, archived: Manifest, out: Path) -> Manifest:
    """Start, register, compare with the golden pairs, stop; write `deployment.json`."""
    started = time.monotonic()
    verify(archived)
    archive, told = archived.path(archived.facts["archive"]), archived.config
    pairs = read_golden(exported.path("golden.json"))
    check_bodies(config, {pair.name: len(pair.request) for pair in pairs})
    progress(0.1, "starting TorchServe")
    installs = requirements_of(archive) is not None
    with serving(config, out.parent / "logs" / "deploy", installs=installs) as server:
        progress(0.4, "loading the archive")
        began = time.monotonic()
        status = server.load(
            archive,
            model,
            batch_size=told["batch_size"],
            max_batch_delay_ms=told["max_batch_delay_ms"],
            workers=told["workers"],
        )
        ready_s = time.monotonic() - began
        progress(0.8, "comparing answers over HTTP")
        prove(server.client, model, pairs, atol=exported.facts["atol"], rtol=exported.facts["rtol"])
    facts = {
        "archive_sha256": archived.facts["sha256"],
        "archive": archived.facts["archive"],
        "target": "local",  # of this proof; another target gets the tuned archive last
        "ready_s": round(ready_s, 2),
        "workers": status.ready,
        "batch_size": status.batch_size,
        "max_batch_delay_ms": status.max_batch_delay_ms,
        "golden": len(pairs),
        "server": {"torchserve": version("torchserve"), "java": java_version(java_home_of(config))},
    }
    write_json(out / "deployment.json", facts)
    return seal(out, model=model, config=config, inputs=[exported, archived], facts=facts, started=started)


def prove(client: Client, model: str, pairs: Sequence[Pair], *, atol: float, rtol: float, version: str | None = None) -> None:
    """Send every golden request; ParityError names the first answer that is not the golden one."""
    for pair in pairs:
        reply = client.predict(model, pair.request, content_type_of(pair.name), version=version)
        if reply.status != 200:
            said = reply.body.decode(errors="replace")[:500]
            raise StageError(f"{model} answers {reply.status} to the golden request {pair.name}: {said}")
        found = difference(pair.answer, json.loads(reply.body), atol=atol, rtol=rtol)
        if found is not None:
            raise ParityError(f"{model} over HTTP differs from the golden answer to {pair.name}: {found}")
