"""A TorchServe that somebody else runs, reached by nothing but HTTP: `deploy.target=remote`.

Its addresses and keys come from the environment and are written nowhere:

MARLINE_MANAGEMENT_URL, MARLINE_INFERENCE_URL             http only on loopback, through a tunnel for example, else https
MARLINE_TOKENS_FILE                                       a copy of the server's key_file.json that only its owner can read,
MARLINE_MANAGEMENT_TOKEN, MARLINE_INFERENCE_TOKEN         or the two keys themselves

TorchServe takes no upload: `deploy.archive_url` says where it finds the archive, and its model API must be on.
"""

import stat
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from marline.archive import Serving, from_yaml, read_mar
from marline.core import Config, Manifest, MarlineError, NotReady, RequestError, ServerError, StageError
from marline.deploy._client import Client, Status
from marline.deploy._deploy import prove
from marline.deploy._drain import drain
from marline.deploy._plan import archive_of
from marline.deploy._tokens import Tokens, read_tokens
from marline.handler import read_golden

POLL_S = 0.2
LOOPBACK = ("127.0.0.1", "localhost", "::1")
API_OFF = " answers 405 "


def to_remote(config: Config, exported: Manifest, tuned: Manifest, client: Client) -> str:
    """Register, wait for READY workers, compare with the golden pairs, make it the default, remove what was.

    Returns the version. Whatever goes wrong before the switch leaves the server as it was. Safe to repeat.
    """
    model, archive, url = config.model, archive_of(tuned), config.deploy.archive_url
    if url is None:
        raise RequestError(
            f"deploy.archive_url is not set, and TorchServe takes no upload: copy {archive} into the server's model store and "
            "write deploy.archive_url=NAME.mar, or an http(s) address of it that the server's allowed_urls admit"
        )
    contents = read_mar(archive)
    version, serving = str(contents.manifest["model"].get("modelVersion", "1.0")), from_yaml(contents.config)
    live = client.describe(model)
    is_new = live is None or live.version != version
    if is_new:
        _register(client, url, model, version, serving, config.deploy.ready_s)
    try:
        _prove(client, f"{model}/{version}", serving, exported, config.deploy.ready_s)
    except BaseException:
        if is_new:
            client.unregister(model, version)
        raise
    _switch(client, model, version, config.deploy.ready_s)
    return version


def _register(client: Client, url: str, model: str, version: str, serving: Serving, ready_s: float) -> None:
    try:
        client.unregister(model, version)  # what a delivery that was interrupted may have left
        client.register(
            url,
            model,
            batch_size=serving.batch_size,
            max_batch_delay_ms=serving.max_batch_delay_ms,
            workers=serving.workers,
            deadline_s=ready_s,
        )
    except ServerError as error:
        raise _explained(error, url) from None


def _prove(client: Client, address: str, serving: Serving, exported: Manifest, ready_s: float) -> None:
    """READY, served as asked, and every golden answer; `address` is MODEL/VERSION."""
    found = _wait_ready(client, address, serving.workers, ready_s)
    if (found.batch_size, found.max_batch_delay_ms) != (serving.batch_size, serving.max_batch_delay_ms):
        raise StageError(
            f"{address} is served with batchSize {found.batch_size} and maxBatchDelay {found.max_batch_delay_ms}, not with "
            f"{serving.batch_size} and {serving.max_batch_delay_ms}: another archive of that version; raise archive.version"
        )
    pairs = read_golden(exported.path("golden.json"))
    prove(client, address, pairs, atol=exported.facts["atol"], rtol=exported.facts["rtol"])


def remote_client(environment: Mapping[str, str], transport: httpx2.BaseTransport | None = None) -> Client:
    """The client of the server that the environment names; RequestError says what is missing or unsafe in it."""
    management, inference = (_url(environment, f"MARLINE_{name}_URL") for name in ("MANAGEMENT", "INFERENCE"))
    return Client(management, inference, _tokens(environment), transport)


def _url(environment: Mapping[str, str], name: str) -> str:
    url = environment.get(name, "")
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0 and not parts.path.strip("/")
    except ValueError:
        good = False
    if not good or "@" in url:
        raise RequestError(
            f"{name} of the environment is no http(s)://HOST:PORT, without path or password; deploy.target=remote needs it"
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise RequestError(
            f"{name}: keys would travel to {parts.hostname} in the clear; use https, or a tunnel to a port on 127.0.0.1"
        )
    return url.rstrip("/")


def _tokens(environment: Mapping[str, str]) -> Tokens:
    named = environment.get("MARLINE_TOKENS_FILE")
    if named is None:
        names = ("MARLINE_MANAGEMENT_TOKEN", "MARLINE_INFERENCE_TOKEN")
        missing = [name for name in names if not environment.get(name)]
        if missing:
            raise RequestError(
                f"deploy.target=remote: the environment has no {' and no '.join(missing)}, and no MARLINE_TOKENS_FILE"
            )
        return Tokens(management=environment[names[0]], inference=environment[names[1]])
    file = Path(named)
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        tokens = read_tokens(file)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = type(error).__name__  # its words may quote what is in the file
        raise RequestError(f"MARLINE_TOKENS_FILE={named} is not a copy of TorchServe's key_file.json ({why})") from None
    if mode & 0o077:
        raise RequestError(f"MARLINE_TOKENS_FILE={named} can be read by others (mode {mode:o}); chmod 600 {named}")
    return tokens


def _wait_ready(client: Client, address: str, workers: int, ready_s: float) -> Status:
    deadline = time.monotonic() + ready_s
    while time.monotonic() < deadline:
        status = client.describe(address)
        if status is not None and status.ready >= workers:
            return status
        time.sleep(POLL_S)
    raise NotReady(
        f"{address} had no {workers} ready workers after {ready_s:.0f} s on {client.management_url}; read its model log"
    )


def _switch(client: Client, model: str, version: str, ready_s: float) -> None:
    """Make a version the default and remove the others, once they have answered what they had."""
    client.make_default(model, version)
    for old in client.versions(model):
        if old.version != version:
            drain(client, model, old.version, ready_s)
            client.unregister(model, old.version)


def _explained(error: ServerError, url: str) -> MarlineError:
    if API_OFF in str(error):
        return StageError(f"{error}; the server's model API is off: start it with enable_model_api=true")
    if "allowed URL" in str(error) or "not found" in str(error):
        return RequestError(
            f"{error}; deploy.archive_url={url} is neither a file in its model store nor admitted by its allowed_urls"
        )
    return error
