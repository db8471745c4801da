"""A collector for tests: real HTTP on loopback, which keeps what it is sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeCollector:
    """What arrived so far; answers with `status`, and not before `answer` is set."""

    url: str
    status: int = 200
    paths: list[str] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    answer: threading.Event = field(default_factory=threading.Event)


@contextmanager
def fake_collector(path: str = "/reports/tiny") -> Iterator[FakeCollector]:
    """Serve one on a free port of 127.0.0.1; clear its `answer` to make it hang."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler, bind_and_activate=True)
    server.daemon_threads = True
    collector = FakeCollector(f"http://127.0.0.1:{server.server_address[1]}{path}")
    collector.answer.set()
    server.collector = collector  # type: ignore[attr-defined]  # how a handler of http.server finds anything
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield collector
    finally:
        collector.answer.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        collector: FakeCollector = self.server.collector  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        collector.paths.append(self.path)
        collector.reports.append(json.loads(body))
        if collector.answer.wait(10):
            self.send_response(collector.status)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""
