"""A collector for tests: real HTTP on loopback, which keeps what it is sent and can be as bad as real ones."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FakeCollector:
    """What arrived so far, batches taken apart in `reports` and whole in `posted`.

    It answers with the next of `first`, then with `status`, after `delay_s` and not before `answer` is set; with `trickle_s`
    each byte takes so long. As byne-serve it knows single reports alone, unless `batches`; `times` are monotonic.
    """

    url: str
    batches: bool = False
    status: int = 200
    first: list[int] = field(default_factory=list)
    retry_after: str | None = None
    delay_s: float = 0.0
    trickle_s: float = 0.0
    paths: list[str] = field(default_factory=list)
    unknown_paths: list[str] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    posted: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    answer: threading.Event = field(default_factory=threading.Event)


@contextmanager
def fake_collector(path: str = "/reports/tiny", *, batches: bool = False) -> Iterator[FakeCollector]:
    """Serve one on a free port of 127.0.0.1; clear its `answer` to make it hang."""
    server = _Server(("127.0.0.1", 0), _Handler)
    collector = FakeCollector(f"http://127.0.0.1:{server.server_address[1]}{path}", batches)
    collector.answer.set()
    server.collector = collector
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield collector
    finally:
        collector.answer.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256  # a hundred children may end at the same time
    collector: FakeCollector


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        collector = self.server.collector
        posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not (self.path.endswith("/report") or (collector.batches and self.path.endswith("/reports"))):
            collector.unknown_paths.append(self.path)
            self._say(404)
            return
        collector.times.append(time.monotonic())
        collector.paths.append(self.path)
        collector.posted.append(posted)
        collector.reports.extend(posted.get("events", [posted]))
        status = collector.first.pop(0) if collector.first else collector.status
        time.sleep(collector.delay_s)
        if collector.answer.wait(10):
            self._say(status)

    def _say(self, status: int) -> None:
        collector = self.server.collector
        wish = f"Retry-After: {collector.retry_after}\r\n" if collector.retry_after else ""
        head = f"HTTP/1.1 {status} Said\r\n{wish}Content-Length: 0\r\n\r\n".encode()
        for part in (bytes([byte]) for byte in head) if collector.trickle_s else (head,):
            time.sleep(collector.trickle_s)
            self.wfile.write(part)

    def handle(self) -> None:
        """Whoever hangs up early, as the tracker does at its deadlines, is no error here."""
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""
