"""In the place of Ray Serve: what its controller says of applications, and a proxy that answers for them."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

DEVICES = 2


class FakeServe(ThreadingHTTPServer):
    """Applications come up at the third look at them, and go at the second after their deletion."""

    daemon_threads = True

    def __init__(self) -> None:
        self.applications: dict[str, dict[str, Any]] = {}
        self.looks: Counter[str] = Counter()
        self.broken: set[str] = set()
        self.held = threading.Event()
        super().__init__(("127.0.0.1", 0), _Answers)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the site on Ray Serve ask this one."""
        at = "deploy.rollout.ray_site"
        for name, instead in {
            "serve_runs": lambda: True,
            "serve_details": self.details,
            "deploy_application": self.deploy,
            "delete_application": self.delete,
            "free_nodes": lambda: [{"CPU": float(DEVICES - len(self.applications))}],
            "own_ip": lambda: "127.0.0.1",
        }.items():
            monkeypatch.setattr(f"{at}.{name}", instead)
        monkeypatch.setattr("serve.launch.ray_session.own_ip", lambda: "127.0.0.1")

    def deploy(self, config: dict[str, Any], environment: Mapping[str, str]) -> None:
        """As ``ray_api.deploy_application``."""
        name = config["name"]
        self.looks[name] = 0
        self.applications[name] = {
            "status": "DEPLOYING", "message": "", "route_prefix": config["route_prefix"], "source": "imperative",
            "deployments": {
                "LLMServer:tiny": {
                    "message": "", "deployment_config": {"num_replicas": 1},
                    "replicas": [{"replica_id": f"{name}-0", "state": "STARTING", "pid": None, "node_ip": "127.0.0.1"}],
                },
            },
        }  # fmt: skip

    def delete(self, app: str, *, wait: bool = True) -> None:
        """As ``ray_api.delete_application``."""
        assert not wait
        self.applications[app]["status"] = "DELETING"
        self.looks[app] = 0

    def details(self) -> dict[str, Any]:
        """As ``ray_api.serve_details``."""
        for name, one in list(self.applications.items()):
            self.looks[name] += 1
            if one["status"] == "DELETING" and self.looks[name] > 2:
                del self.applications[name]
            elif one["status"] == "DEPLOYING" and self.looks[name] > 2:
                self.become(name, "DEPLOY_FAILED" if name in self.broken else "RUNNING")
        proxies = {"node": {"node_ip": "127.0.0.1"}}
        return {
            "applications": json.loads(json.dumps(self.applications)), "proxies": proxies,
            "http_options": {"port": self.server_address[1]},
        }  # fmt: skip

    def become(self, name: str, status: str) -> None:
        """Have an application's status change."""
        one = self.applications[name]
        one["status"], one["message"] = status, "" if status == "RUNNING" else f"it is {status}"
        for deployment in one["deployments"].values():
            for replica in deployment["replicas"]:
                replica["state"] = "RUNNING" if status == "RUNNING" else "STOPPING"

    def serves(self, path: str) -> bool:
        """Whether an application that runs is asked."""
        name = path.split("/")[1]
        return name in self.applications and self.applications[name]["status"] == "RUNNING"


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServe

    def do_GET(self) -> None:
        if self.path.endswith("/held"):
            self.server.held.wait(20)
        self._answer({"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"usage": {"completion_tokens": 4}})

    def _answer(self, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(200 if self.server.serves(self.path) else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
