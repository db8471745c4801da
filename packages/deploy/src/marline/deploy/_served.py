"""One model that `nox -s serve` serves: which run, by which archive, and the files by which others find it."""

import base64
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import marline.handler
from marline.archive import extract, read_mar
from marline.core import Config, Manifest, RequestError, read_manifest, state_file, verify
from marline.deploy._asking import forget
from marline.deploy._client import content_type_of
from marline.deploy._curl import curl_lines
from marline.deploy._preflight import check_bodies
from marline.deploy._server import Server
from marline.deploy._swap import Release, Swapped, swap
from marline.deploy._tokens import write_private
from marline.handler import read_golden


@dataclass(slots=True)
class Served:
    """A model on a server of ours; `version` is the live one, "" before there is any."""

    server: Server
    config: Config
    tuned: Manifest
    version: str = ""
    down: bool = False
    samples: Sequence[Path] = field(default_factory=list)

    @property
    def model(self) -> str:
        """Its name."""
        return self.config.model

    def take(self, tuned: Manifest, canary_s: float, keep: int) -> Swapped:
        """Make the tuned archive of a run the live version, and note that where others look; raises what `swap` raises."""
        verify(tuned)
        archive, chosen = tuned.path(tuned.facts["tuned"]["archive"]), tuned.facts["chosen"]
        exported = read_manifest(tuned.folder.parent / "export")
        samples = _samples(tuned, archive, self.server.folder)
        check_bodies(self.config.deploy, {sample.name: sample.stat().st_size for sample in samples})
        release = Release(
            archive=archive,
            batch_size=chosen["batch_size"],
            max_batch_delay_ms=chosen["max_batch_delay_ms"],
            workers=chosen["workers"],
            pairs=read_golden(exported.path("golden.json")),
            atol=exported.facts["atol"],
            rtol=exported.facts["rtol"],
            samples=[(sample.read_bytes(), content_type_of(sample.name)) for sample in samples],
        )
        swapped = swap(self.server, self.model, release, canary_s=canary_s, keep=keep)
        self.tuned, self.version, self.samples, self.down = tuned, swapped.version, samples, False
        self.note()
        return swapped

    def note(self) -> None:
        """Write the state and the curl file, for which only their owner has a right: they hold the token."""
        client = self.server.client
        with client.tokens.lock:  # the thread that renews the token notes it too
            if not self.version:
                return
            state = {
                "model": self.model,
                "predictions_url": f"{client.inference_url}/predictions/{self.model}",
                "token": client.tokens.inference,
                "token_file": str(self.server.token_file),
                "pid": os.getpid(),
                "payloads": [str(sample.resolve()) for sample in self.samples],
                "slo_ms": self.tuned.facts["slo"]["ms"],
                "batch_size": self.tuned.facts["chosen"]["batch_size"],
                "workers": self.tuned.facts["chosen"]["workers"],
                "run": self.tuned.run,
                "archive_sha256": self.tuned.facts["tuned"]["sha256"],
                "version": self.version,
                "health": "DOWN" if self.down else "UP",
                "installs": self.server.installs,
                "management_url": client.management_url,
                "metrics_url": client.metrics_url,
                "key_file": str(self.server.folder / "key_file.json"),
                "logs": str(self.server.logs.resolve()),
            }
            write_private(self.curl_file, f'header = "Authorization: Bearer {client.tokens.inference}"\n')
            write_private(state_file(self.model), json.dumps(state, indent=2) + "\n")

    def forget(self) -> None:
        """Remove what others find it by."""
        state_file(self.model).unlink(missing_ok=True)
        self.curl_file.unlink(missing_ok=True)
        forget(self.model)

    @property
    def curl_file(self) -> Path:
        """What `curl -K` reads."""
        return state_file(self.model).with_suffix(".curl")

    def greeting(self) -> str:
        """What is served and one curl line per input kind; the token is read from a file, not shown."""
        chosen, url = self.tuned.facts["chosen"], f"{self.server.client.inference_url}/predictions/{self.model}"
        shared = "request_decoding.py" in read_mar(self.tuned.path(self.tuned.facts["tuned"]["archive"])).sizes
        lines = [f"  {line}" for line in curl_lines(url, self.curl_file, self.samples, self.server.folder, shared=shared)]
        told = f"batch_size {chosen['batch_size']}, max_batch_delay_ms {chosen['max_batch_delay_ms']}"
        how = f"{told}, {chosen['workers']} worker(s), version {self.version}, on loopback. Ctrl-C stops it."
        return "\n".join([f"serving {self.model} of run {self.tuned.run}, {how}", *lines])


def _samples(tuned: Manifest, archive: Path, folder: Path) -> list[Path]:
    """The payloads of a load test: the run's samples, or the example inside the archive where they are gone."""
    there = tuned.folder.parent / "load" / "sample"
    if there.is_dir():
        return sorted(there.iterdir())
    carried = "model.pt" in read_mar(archive).sizes
    example = marline.handler.read_signature(io.BytesIO(extract(archive, "model.pt"))).get("example") if carried else None
    if example is None:
        raise RequestError(f"{there} is gone and {archive.name} carries no example; make both again with nox -s pipeline")
    file = folder / Path(example["name"]).name
    file.write_bytes(base64.b64decode(example["body"]))
    return [file]


def told_of(swapped: Swapped, served: Served) -> str:
    """What a swap did, in a line."""
    new = f"{served.model} {swapped.version} of run {served.tuned.run}"
    if swapped.before is None:
        return f"{new} was live before"
    told = [f"{new} is live after {swapped.seconds:.1f} s, in place of {swapped.before}"]
    if swapped.canary is not None:
        seen = swapped.canary
        told.append(
            f"canary: {seen.requests} requests each, errors {seen.errors[0]} and {seen.errors[1]}, p99 {seen.p99_ms[0]:.1f} "
            f"and {seen.p99_ms[1]:.1f} ms, {seen.differing} of {seen.samples} samples answered otherwise"
        )
    told += [f"still loaded: {', '.join(swapped.kept)}"] * bool(swapped.kept)
    return "; ".join([*told, *([swapped.warning] if swapped.warning else [])])
