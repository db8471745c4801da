"""A hub for tests: the part of its HTTP interface that an upload uses, on loopback."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeHub:
    """Takes uploads that carry `token`; with a `status` other than 200 it refuses everything."""

    url: str
    token: str
    status: int = 200
    private: dict[str, bool] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)


@contextmanager
def fake_hub(token: str = "a-token-for-tests") -> Iterator[FakeHub]:  # noqa: S107 - of nothing but this
    """Serve one on a free port of 127.0.0.1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = FakeHub(f"http://127.0.0.1:{server.server_address[1]}", token)
    server.hub = hub  # type: ignore[attr-defined]  # how a handler of http.server finds anything
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._refuse(404)

    def do_POST(self) -> None:
        hub: FakeHub = self.server.hub  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        hub.paths.append(path)
        if hub.status != 200 or self.headers["Authorization"] != f"Bearer {hub.token}":
            self._refuse(hub.status if hub.status != 200 else 401)
        elif path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told['organization']}/{told['name']}"
            hub.private[name] = told.get("visibility") == "private"
            self._answer({"url": f"{hub.url}/{name}"})
        elif "/preupload/" in path:
            told = {"uploadMode": "regular", "shouldIgnore": False}
            self._answer({"files": [{"path": file["path"], **told} for file in json.loads(body)["files"]]})
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            parts = [part["value"] for part in map(json.loads, body.splitlines()) if part["key"] == "file"]
            hub.files.setdefault(name, {}).update({part["path"]: base64.b64decode(part["content"]) for part in parts})
            self._answer({"commitUrl": f"{hub.url}/{name}/commit/1", "commitOid": "1"})
        else:  # /api/validate-yaml
            self._answer({"errors": [], "warnings": []})

    def _refuse(self, status: int) -> None:
        self._answer({"error": "refused"}, status)

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""
