"""The controller's port: whether it lives, whether it is ready, and its metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tuner.errors import BadInput

TEXT = "text/plain; version=0.0.4; charset=utf-8"


class HealthPort:
    """Answers each path of ``checks`` with 200 or 503, and /metrics with what ``metrics`` says."""

    def __init__(
        self, host: str, port: int, checks: Mapping[str, Callable[[], bool]], metrics: Callable[[], bytes]
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, metrics(), TEXT)
                elif (check := checks.get(self.path)) is not None:
                    well = check()
                    self._answer(200 if well else 503, b"ok\n" if well else b"not yet\n", "text/plain")
                else:
                    self._answer(404, b"unknown\n", "text/plain")

            def _answer(self, code: int, body: bytes, kind: str) -> None:
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *words: object) -> None:
                """Nothing: the kubelet asks every few seconds."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise BadInput("--port", port, f"a free port of this machine ({error})") from None
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
