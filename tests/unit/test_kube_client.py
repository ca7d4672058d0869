"""The client of the API server, on answers that no API server gives."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.layout_requests import NAMESPACE
from tuner.app.controller.client import KubeClient
from tuner.app.controller.kube import LEASE, KubeError

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:%d"}}]
users: [{name: me, user: {}}]
"""


@pytest.mark.slow
def test_a_refusal_without_a_word_is_one_too(tmp_path):
    """A proxy in between says no more than a number."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(503 if "watch" in self.path else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *words: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        (tmp_path / "config").write_text(KUBECONFIG % server.server_address[1], encoding="utf-8")
        kube = KubeClient(str(tmp_path / "config"))
        assert kube.get(LEASE, NAMESPACE, "lease") is None
        with pytest.raises(KubeError) as refused:
            list(kube.watch(LEASE, NAMESPACE, "1", 1.0))
        assert refused.value.code == 503
        server.shutdown()
