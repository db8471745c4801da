"""The hub as `hf:` sees it: a small real server that speaks its interface, is gone, or never answers."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from marline.core import Manifest, RequestError, StageError
from marline.load._hub import fetched

Run = Callable[..., Manifest]
Tiny = Callable[[str], Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """One repository, org/name with the branch main, on a port of this machine."""

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlparse(self.path).path)
            if path.startswith("/api/models/org/name/tree/"):
                tree = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": f.name} for f in folder.iterdir()]
                self.answer(json.dumps(tree).encode())
            elif path in {"/api/models/org/name", "/api/models/org/name/revision/main"}:
                self.answer(json.dumps({"id": "org/name", "sha": COMMIT, "siblings": []}).encode())
            elif path.startswith(f"/org/name/resolve/{COMMIT}/"):
                file = folder / path.rpartition("/")[2]
                self.answer(file.read_bytes(), {"ETag": f'"{file.name}"', "X-Repo-Commit": COMMIT})
            else:
                self.answer(b"{}", {"X-Error-Code": "RepoNotFound"}, 404)

        do_HEAD = do_GET  # noqa: N815 - so it must be called

        def answer(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hub's client reads from its environment: an empty cache, and a hub that is not there."""
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)


def test_a_repository_is_fetched_once_and_then_needs_no_hub(run: Run, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub(tiny("bert")) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        fetched = run(source="hf:org/name@main")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    again = run(source=f"hf:org/name@{COMMIT}", weights="published")

    assert (COMMIT, COMMIT) == (fetched.facts["revision"], again.facts["revision"])
    expected = {file.name: file.read_bytes() for file in tiny("bert").iterdir()}
    for manifest in (fetched, again):
        assert expected == {file.name: file.read_bytes() for file in manifest.path("checkpoint").iterdir()}


def test_weights_that_cannot_be_had_are_random_under_auto_and_refused_under_published(
    run: Run, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub(tiny("bert")) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        run(source="hf:org/name", weights="random")  # fetches all but weights
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    assert "random" == run(source="hf:org/name").facts["weights"]["kind"]
    with pytest.raises(StageError, match="org/name: the hub cannot be reached"):
        run(source="hf:org/name", weights="published")


def test_a_repository_that_is_not_there_is_named(run: Run, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    with hub(tiny("bert")) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(StageError, match=r"org/other: the hub has no such repository or revision"):
            run(source="hf:org/other")


def test_a_hub_that_is_gone_is_named_where_nothing_is_cached(run: Run) -> None:
    with pytest.raises(StageError, match=r"org/name: the hub cannot be reached, and the cache .* load\.source=\./"):
        run(source="hf:org/name")


def test_a_branch_is_refused_for_code_before_the_hub_is_asked(run: Run) -> None:
    with pytest.raises(RequestError, match="'main' may change at any time"):
        run(source="hf:org/name@main", trust_remote_code=True)


def test_a_hub_that_never_answers_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")

        with pytest.raises(StageError, match="no answer within 3 s"):
            fetched("org/name", "main", ["*.json"], 3)
