"""Brings the tuned archive of a finished run to a `deploy.target` other than local: last, and only what can be trusted."""

import os
import shutil
from pathlib import Path

from marline.core import Config, Manifest, RequestError, project_root, read_manifest, verify, write_json
from marline.deploy._compose import write_compose
from marline.deploy._image import write_image
from marline.deploy._kubernetes import write_kubernetes
from marline.deploy._plan import archive_of, plan_of
from marline.deploy._remote import remote_client, to_remote


def deliver(config: Config, run: Path) -> str:
    """Deliver a run with finished stages load, export and tune; returns what there is to say about it, empty for local.

    Compose and Kubernetes files are written to `run/compose` or `run/kubernetes`, whole or not at all.
    """
    target = config.deploy.target
    if target == "local":
        return ""
    loaded, exported, tuned = (read_manifest(run / stage) for stage in ("load", "export", "tune"))
    refuse_random(config, loaded)
    _refuse_unmeasured(target, tuned)
    verify(tuned)
    if target == "remote":
        return _to_remote(config, exported, tuned, run)
    written = _written(config, tuned, run)
    return f"{target}: files for {config.model} in {written}; its README.md says how to start them"


def refuse_random(config: Config, loaded: Manifest) -> None:
    """RequestError for random weights and a target other than local; known once stage load is done, hours before the end."""
    weights = loaded.facts.get("weights", {})
    if config.deploy.target != "local" and weights.get("kind") == "random":
        raise RequestError(
            f"deploy.target={config.deploy.target}: {config.model} has random weights ({weights.get('detail')}), its answers "
            "mean nothing; give it weights (load.weights=FILE, or published), or write deploy.target=local"
        )


def _refuse_unmeasured(target: str, tuned: Manifest) -> None:
    facts = tuned.facts
    emulated = facts["accelerator"]["kind"] == "emulated"
    if emulated or facts["profile"] == "smoke":
        what = (
            f"was measured on an emulated accelerator ({facts['accelerator']['name']})" if emulated else "is of profile smoke"
        )
        raise RequestError(
            f"deploy.target={target}: run {tuned.run} {what}; make one with nox -s pipeline -- model={tuned.model}"
        )


def _to_remote(config: Config, exported: Manifest, tuned: Manifest, run: Path) -> str:
    client = remote_client(os.environ)
    version = to_remote(config, exported, tuned, client)
    facts = {"archive_sha256": tuned.facts["tuned"]["sha256"], "version": version, "inference_url": client.inference_url}
    (run / "remote").mkdir(exist_ok=True)
    write_json(run / "remote" / "deployment.json", facts)
    where = f"{client.inference_url}/predictions/{config.model}"
    return f"remote: {config.model} {version} answers at {where}, proven with its golden pairs"


def _written(config: Config, tuned: Manifest, run: Path) -> Path:
    """Write beside the place, then swap: whoever reads it sees the old files or the new."""
    plan, out = plan_of(config, tuned, tuned.run), run / config.deploy.target
    partial, old = (run / f".{out.name}.{what}" for what in ("partial", "old"))
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    (partial / "image").mkdir(parents=True)
    write_image(plan, archive_of(tuned), project_root() / "constraints.txt", partial / "image")
    if config.deploy.target == "compose":
        write_compose(plan, partial)
    else:
        write_kubernetes(plan, partial)
    if out.exists():
        out.rename(old)
    partial.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return out
