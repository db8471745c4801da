"""Takes a new version of a served model live without losing a request, or leaves the old one as it was.

Register beside the live version, wait until READY, compare with the golden pairs under the version's own address, watch it
beside the live one for a while if asked, make it the default, drain the old one, remove it. TorchServe splits no traffic: up
to the switch users are answered by the old version alone, and after it by the new one alone.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marline.core import MarlineError, RequestError, ServerError
from marline.deploy._canary import Canary, watch
from marline.deploy._client import Status
from marline.deploy._deploy import prove
from marline.deploy._drain import drain
from marline.deploy._server import Server
from marline.handler import Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """An archive, how it is served, and what it is judged by: golden pairs and, beside the live version, samples."""

    archive: Path
    batch_size: int
    max_batch_delay_ms: int
    workers: int
    pairs: Sequence[Pair]
    atol: float
    rtol: float
    samples: Sequence[tuple[bytes, str]] = ()  # (body, content type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapped:
    """What a swap did: the version that is live, the one that was (None: none), and what is left of it and why."""

    version: str
    before: str | None
    seconds: float
    canary: Canary | None = None
    kept: tuple[str, ...] = ()
    warning: str | None = None


def swap(server: Server, model: str, release: Release, *, canary_s: float = 0.0, keep: int = 0) -> Swapped:
    """Make a release the live version of a model; `keep` earlier ones stay loaded, and `roll_back` goes back to them.

    Whatever is wrong with it is raised as it is (WorkerError, NotReady, ParityError ...), once the new version is removed and
    while the old one serves on. Repeated, after a crash as well, it goes on from where things stand.
    """
    began, live = time.monotonic(), server.client.describe(model)
    told = {name: getattr(release, name) for name in ("batch_size", "max_batch_delay_ms", "workers")}
    try:
        new = server.load(release.archive, model, **told)
        before = live.version if live is not None and live.version != new.version else None
        try:
            prove(server.client, model, release.pairs, atol=release.atol, rtol=release.rtol, version=new.version)
            seen = (
                watch(server.client, model, (before, new.version), release.samples, canary_s) if canary_s and before else None
            )
        except BaseException:
            if live is None or before is not None:
                server.unload(model, new.version)
            raise
    except MarlineError as error:
        if live is None:
            raise
        raise type(error)(f"{error}\n{model} {live.version} was live all the time and still is") from None
    server.client.make_default(model, new.version)
    kept, warning = _retire(server, model, new.version, before, keep)
    return Swapped(
        version=new.version, before=before, seconds=time.monotonic() - began, canary=seen, kept=kept, warning=warning
    )


def roll_back(server: Server, model: str, version: str) -> Swapped:
    """Make a version that is still loaded the live one again; what was live stays loaded."""
    began, live = time.monotonic(), server.client.describe(model)
    versions = {one.version: one for one in server.client.versions(model)}
    if live is None or version not in versions or not versions[version].ready:
        loaded = ", ".join(name for name, one in versions.items() if one.ready) or "none"
        raise RequestError(f"{model} {version} is not loaded with a ready worker, {loaded} is; raise deploy.keep_versions")
    server.client.make_default(model, version)
    return Swapped(version=version, before=live.version, seconds=time.monotonic() - began, kept=(live.version,))


def _retire(server: Server, model: str, live: str, before: str | None, keep: int) -> tuple[tuple[str, ...], str | None]:
    """Drain and remove what is neither live nor kept; what cannot be drained stays, which loses nothing."""
    others = sorted((one for one in server.client.versions(model) if one.version != live), key=_age)
    earlier = [one.version for one in others if one.version != before] + ([before] if before is not None else [])
    leaving, kept = (earlier[:-keep], earlier[-keep:]) if keep else (earlier, [])
    problems: list[str] = []
    for version in leaving:
        try:
            drain(server.client, model, version)
            server.unload(model, version)
        except ServerError as error:
            kept.append(version)
            problems.append(f"{version} stays loaded: {error}")
    return tuple(kept), "; ".join(problems) or None


def _age(status: Status) -> int:
    """TorchServe numbers workers as it makes them, and lists versions in any order."""
    return max(map(int, status.worker_ids), default=0)
