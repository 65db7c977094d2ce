"""An object store to read from that fails: requests pass through a server that refuses some of them."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import urlsplit


@dataclass
class FlakyStore:
    """Tell how many requests for keys that contain `key` are refused before the next one passes, and how many were."""

    url: str = ""
    key: str = ""
    status: int = 503
    refusals: int = 0
    refused: int = 0

    def refuse(self, key: str, *, times: int, status: int = 503) -> None:
        """Refuse the next requests for keys that contain this text; a status of 0 cuts the connection."""
        self.key, self.status, self.refusals, self.refused = key, status, times, 0


@contextmanager
def flaky_store(endpoint: str) -> Iterator[FlakyStore]:
    """Serve what the store at `endpoint` serves, but for what is to be refused."""
    store, lock = FlakyStore(), Lock()
    host = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._pass()

        def do_HEAD(self) -> None:
            self._pass()

        def _pass(self) -> None:
            with lock:
                is_refused = store.refusals > 0 and store.key in self.path
                store.refusals -= is_refused
                store.refused += is_refused
            if is_refused and store.status == 0:
                self.close_connection = True
                return
            if is_refused:
                self._answer(store.status, [], b"")
                return
            behind = http.client.HTTPConnection(host)
            behind.request(self.command, self.path, headers=dict(self.headers))
            answer = behind.getresponse()
            self._answer(answer.status, answer.getheaders(), answer.read())
            behind.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            kept = {name.lower(): text for name, text in headers if name.lower() != "transfer-encoding"}
            kept.setdefault("content-length", str(len(content)))
            for name, text in kept.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    store.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
