"""What one machine has made, another takes: finished stages and runs in a store that machines share (`artifacts_url`).

    sha256/AB/CDEF...            each file once, named by its content
    keys/STAGE/KEY.json          the manifest of a stage, by all that decides its work
    runs/MODEL/RUN/STAGE.json    the manifests of a finished run, its report last

A manifest is written when all its files are there, and of two writers the last one wins: both are right. What comes from
a store is believed only with the size and sha256 that its manifest says; who may write there may still have readers run
code, because models are code. Knows no Prefect and no stage's work.
"""

import asyncio
import hashlib
import json
import os
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, MemoryStore, S3Store

from marline.core import STAGES, Manifest, Output, StageError, parse_manifest, read_manifest, write_manifest

CHUNK_BYTES = 8 * 2**20
AT_ONCE = 4  # parts of a file under way: at 0.5 MB/s each is through before the store is taken for silent
SILENT = {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "1h"}  # of one request; then it is tried again
RETRIES = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
MANIFEST_BYTES = 16 * 2**20
RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
NO_CREDENTIALS = "169.254.169.254"  # where object stores ask for them when they have found none
T = TypeVar("T")


def by_key(stage: str, key: str) -> str:
    """Where the manifest of a stage is kept by its cache key."""
    return f"keys/{stage}/{key}.json"


def of_run(model: str, run: str, stage: str) -> str:
    """Where the manifest of a stage of a finished run is kept."""
    return f"runs/{model}/{run}/{stage}.json"


def opened(url: str | None, *, to_write: bool = True) -> "Store | None":
    """The store at `url`, once it has taken a small object; StageError says what to do where it does not."""
    if url is None:
        return None
    try:
        if url.startswith("file:"):
            store = Store(url, LocalStore.from_url(url))
        else:
            named = [os.environ.get(name, "") for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")]
            plain = any(address.startswith("http:") for address in named)  # who names such an address means it
            told: Any = {"client_options": {**SILENT, "allow_http": plain}, "retry_config": RETRIES}
            store = Store(url, S3Store.from_url(url, **told))
    except (BaseError, OSError, ValueError) as error:
        raise StageError(f"artifacts_url={url}: {_reason(error)}, or write artifacts_url=null") from None
    if to_write:
        store.begin()
    return store


@dataclass(frozen=True)
class Store:
    """A store and what was found to be wrong in it."""

    url: str
    objects: S3Store | LocalStore | MemoryStore
    damaged: set[str] = field(default_factory=set)  # sha256 of objects that are not what they are named

    def begin(self) -> None:
        """Prove that the store can be written to, before anything is made for it."""
        try:
            self._answer(partial(obstore.put_async, self.objects, "marline.json", b'{"schema_version": 1}\n'))
        except StageError as error:
            raise StageError(f"{error}, or write artifacts_url=null") from None

    def fetch(self, place: str, out: Path, model: str) -> Manifest | None:
        """Bring the stage whose manifest is at `place` to the folder `out`, whole or not at all; None where there is none.

        StageError: it is damaged, or the store does not answer.
        """
        hidden = out.with_name(f".{out.name}")
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(hidden, ignore_errors=True)  # of a process that was killed
        hidden.mkdir()
        try:
            if not self._answer(partial(self._bring, place, hidden, out.name, model)):
                return None
            hidden.rename(out)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)
        return read_manifest(out)

    def send(self, manifest: Manifest, place: str) -> None:
        """Keep a stage under `place`: what it made first, its manifest last. StageError where the store does not take it."""
        self._answer(partial(self._send, manifest, place))

    def holds(self, place: str) -> bool:
        """Whether there is a manifest at `place`; StageError where the store does not answer."""
        return self._answer(partial(self._size, place)) is not None

    def runs(self, model: str) -> list[str]:
        """The finished runs of a model, oldest first; StageError where the store does not answer."""
        parts = [path.split("/") for path in self._answer(partial(self._paths, f"runs/{model}"))]
        return sorted(run for *_, run, name in parts if name == f"{STAGES[-1]}.json" and RUN.fullmatch(run))

    def _answer(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the store answers; its errors are told as ours. In an event loop, where an interrupt need not wait for it."""

        async def answer() -> T:
            return await ask()

        try:
            return asyncio.run(answer())
        except (BaseError, OSError, ValueError) as error:
            raise StageError(f"{self.url}: {_reason(error)}") from None

    async def _bring(self, place: str, folder: Path, stage: str, model: str) -> bool:
        try:
            found = await obstore.get_async(self.objects, place)
        except FileNotFoundError:
            return False
        try:
            text = bytes(await found.bytes_async()) if found.meta["size"] <= MANIFEST_BYTES else b""
            manifest = parse_manifest(text, folder)
        except ValueError:
            raise StageError(f"{place} in {self.url} is no manifest") from None
        if (manifest.stage, manifest.model) != (stage, model) or not RUN.fullmatch(manifest.run):
            raise StageError(f"{place} in {self.url} is not the manifest of a {stage} of {model}")
        for name, output in manifest.outputs.items():
            await self._download(output, folder / name)
        write_manifest(manifest)
        return True

    async def _download(self, output: Output, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        hashed, size = hashlib.sha256(), 0
        try:
            found = await obstore.get_async(self.objects, _object(output))
        except FileNotFoundError:
            raise StageError(f"{_object(output)} is missing in {self.url}") from None
        with file.open("xb") as stream:
            async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                size += len(chunk)
                if size > output.size_bytes:
                    break
                hashed.update(chunk)
                stream.write(chunk)
        if size != output.size_bytes or hashed.hexdigest() != output.sha256:
            self.damaged.add(output.sha256)
            raise StageError(f"{_object(output)} in {self.url} is damaged: its sha256 or size differs")

    async def _send(self, manifest: Manifest, place: str) -> None:
        sizes = await asyncio.gather(*(self._size(_object(output)) for output in manifest.outputs.values()))
        for (name, output), size in zip(manifest.outputs.items(), sizes, strict=True):
            if size != output.size_bytes or output.sha256 in self.damaged:
                file, target = manifest.folder / name, _object(output)
                await obstore.put_async(self.objects, target, file, chunk_size=CHUNK_BYTES, max_concurrency=AT_ONCE)
                self.damaged.discard(output.sha256)
        await obstore.put_async(self.objects, place, json.dumps(manifest.model_dump(mode="json")).encode())

    async def _size(self, place: str) -> int | None:
        try:
            return (await obstore.head_async(self.objects, place))["size"]
        except FileNotFoundError:
            return None

    async def _paths(self, folder: str) -> list[str]:
        return [one["path"] for one in await obstore.list(self.objects, folder).collect_async()]


def _object(output: Output) -> str:
    return f"sha256/{output.sha256[:2]}/{output.sha256[2:]}"


def _reason(error: Exception) -> str:
    """Why a store does not do as asked, and what to do, in a line. What a server answers may repeat credentials: left out."""
    text = str(error)
    told = re.search(r"<Code>(\w{1,64})</Code>", text)
    code = f" ({told.group(1)})" if told else ""
    if NO_CREDENTIALS in text:
        return "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return f"access is refused{code}; check AWS_ACCESS_KEY_ID, its rights and AWS_REGION"
    if isinstance(error, FileNotFoundError):
        return f"there is no such bucket or folder{code}; make it"
    if isinstance(error, BaseError) and "S3" in text:
        endpoint = re.sub(r"//.*@", "//", os.environ.get("AWS_ENDPOINT_URL", "AWS"))
        return f"requests to {endpoint} fail{code}; check AWS_ENDPOINT_URL, AWS_REGION and the network"
    return f"{text.partition(chr(10))[0][:200]}; make or mount the folder"
