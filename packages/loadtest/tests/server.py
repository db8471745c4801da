"""A small HTTP server for the tests: `server.py DELAY_S STATUS PAUSE_AT PAUSE_S MESSAGE TOKEN_FILE`; prints its port.

Answers every POST after the delay with that status. At request number PAUSE_AT it stops answering anyone for PAUSE_S. With a
TOKEN_FILE every tenth answer renews the token, at once; the file has the new one 0.1 s later.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

delay_s, status, pause_at, pause_s = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
token_file = Path(sys.argv[6]) if sys.argv[6] else None
token = "a-token"
going = threading.Event()
going.set()
lock = threading.Lock()
seen = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two packets: the second would wait 40 ms for the first one's receipt

    def do_POST(self) -> None:
        global seen, token  # noqa: PLW0603 - one counter, one token, one process
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        with lock:
            seen += 1
            if seen == pause_at:
                going.clear()
                threading.Timer(pause_s, going.set).start()
            refused = token_file is not None and self.headers["Authorization"] != f"Bearer {token}"
            seen -= refused
            if token_file is not None and not refused and seen % 10 == 0:
                token = f"token-{seen}"
                fresh = token_file.with_suffix(".new")
                fresh.write_text(json.dumps({"token": token}))
                threading.Timer(0.1, fresh.replace, [token_file]).start()
        going.wait()
        time.sleep(delay_s)
        told = f"{self.headers['Authorization']} {self.headers['Content-Type']} {len(asked)}"
        error = json.dumps({"code": status, "type": "TestException", "message": sys.argv[5]})
        body = (told if status == 200 else error).encode()
        if refused:
            body = b'{"code": 400, "type": "InvalidKeyException", "message": "Token Authorization failed"}'
        self.send_response(400 if refused else status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class names it so
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


with Server(("127.0.0.1", 0), Handler) as server:
    print(server.server_port, flush=True)
    server.serve_forever()
