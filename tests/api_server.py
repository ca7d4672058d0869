"""A real Kubernetes API server on the loopback, with etcd and the garbage collector behind it; nothing runs pods.

``.ci/api-server`` builds the programs (Kubernetes 1.20, the newest whose sources Debian has). It knows no CEL, so that
newer definitions are made to fit (``fitting``).
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.tools import api_server
from tuner.app.controller.client import KubeClient
from tuner.app.controller.kube import Kind, KubeError, Object

_GONE = ("x-kubernetes-validations", "x-kubernetes-list-map-keys")
_DAY = datetime.timedelta(days=1)


class Admin(KubeClient):
    """Whoever may do everything: also what lies in no namespace."""

    def ask(self, method: str, path: str, body: Object | None = None, content: str = "application/json") -> Object:
        return self._ask("admin", method, Kind("", "", "any"), path, body, content)

    def post(self, path: str, body: Object) -> Object:
        """Make one; it may be there already."""
        try:
            return self.ask("POST", path, body)
        except KubeError as error:
            if error.code == 409:
                return body
            raise

    def delete(self, path: str) -> None:
        self.ask("DELETE", path)


class ApiServer:
    """Started by ``start``, ended by ``stop``; ``restart`` ends the API server alone, as a crash does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._programs = folder, api_server()
        self.port, self._etcd, self._peers = _free_ports(3)
        self.url = f"https://127.0.0.1:{self.port}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._certificates = _Certificates(folder)
        self.kubeconfig = self._write_kubeconfig("admin", self._certificates.user("admin", "system:masters"))

    def start(self) -> ApiServer:
        """Begin, and wait until it answers."""
        peers = f"http://127.0.0.1:{self._peers}"
        etcd = f"http://127.0.0.1:{self._etcd}"
        self._run(
            "etcd", "--data-dir", "etcd-data", "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster",
            f"default={peers}", "--unsafe-no-fsync",
        )  # fmt: skip
        self._serve()
        self._run(
            "kube-controller-manager", "--kubeconfig", str(self.kubeconfig), "--leader-elect=false", "--port=0",
            "--secure-port=0", "--service-account-private-key-file", "accounts.key", "--root-ca-file", "ca.crt",
            "--controllers", "garbagecollector,namespace,serviceaccount,serviceaccount-token,root-ca-cert-publisher",
        )  # fmt: skip
        return self

    def restart(self, pause_s: float = 0.0) -> None:
        """Kill the API server, and start it again."""
        self._end("kube-apiserver")
        time.sleep(pause_s)
        self._serve()

    def stop(self) -> None:
        """End all."""
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            self._end(name)

    def admin(self) -> Admin:
        """A client that may do everything."""
        return Admin(str(self.kubeconfig))

    def token_kubeconfig(self, namespace: str, account: str) -> Path:
        """How a pod with that ServiceAccount reaches the server."""
        admin, path = self.admin(), f"/api/v1/namespaces/{namespace}"
        found = wait_for(lambda: admin.ask("GET", f"{path}/serviceaccounts/{account}").get("secrets"))
        secret = admin.ask("GET", f"{path}/secrets/{found[0]['name']}")
        token = base64.b64decode(secret["data"]["token"]).decode()
        return self._write_kubeconfig(f"{namespace}-{account}", {"token": token})

    def _serve(self) -> None:
        self._run(
            "kube-apiserver", "--etcd-servers", f"http://127.0.0.1:{self._etcd}", "--bind-address", "127.0.0.1",
            "--advertise-address", "127.0.0.1", "--secure-port", str(self.port), "--service-cluster-ip-range",
            "10.0.0.0/24", "--tls-cert-file", "server.crt", "--tls-private-key-file", "server.key", "--client-ca-file",
            "ca.crt", "--authorization-mode", "RBAC", "--service-account-key-file", "accounts.key",
            "--service-account-signing-key-file", "accounts.key", "--service-account-issuer",
            "https://kubernetes.default.svc", "--disable-admission-plugins", "ServiceAccount",
        )  # fmt: skip
        admin = self.admin()
        wait_for(lambda: admin.ask("GET", "/api/v1/namespaces/default"), 60)

    def _run(self, program: str, *words: str) -> None:
        with (self.folder / f"{program}.log").open("ab") as log:
            self._running[program] = subprocess.Popen(
                [str(self._programs / program), *words],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def _end(self, program: str) -> None:
        """At once: an orderly end waits a minute for those who watch."""
        process = self._running.pop(program, None)
        if process is not None:
            process.kill()
            process.wait()

    def _write_kubeconfig(self, name: str, user: dict[str, str]) -> Path:
        cluster = {"server": self.url, "certificate-authority": str(self.folder / "ca.crt")}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": name}}],
            "current-context": "here",
        }
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path


class _Certificates:
    """An authority of its own, and what it signed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key, self._ca = _key(), None
        self._ca = self._sign("parlay-test-ca", None, self._key, authority=True)
        _write(folder / "ca.crt", self._ca)
        server = _key()
        _write(folder / "server.key", server)
        _write(folder / "server.crt", self._sign("kube-apiserver", None, server))
        _write(folder / "accounts.key", _key())

    def user(self, name: str, group: str) -> dict[str, str]:
        """A client's certificate, as a kubeconfig names it."""
        key, paths = _key(), (self._folder / f"{name}.crt", self._folder / f"{name}.key")
        _write(paths[0], self._sign(name, group, key))
        _write(paths[1], key)
        return {"client-certificate": str(paths[0]), "client-key": str(paths[1])}

    def _sign(self, name: str, group: str | None, key: rsa.RSAPrivateKey, authority: bool = False) -> x509.Certificate:
        names = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        names += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
        subject, now = x509.Name(names), datetime.datetime.now(datetime.UTC)
        issuer = subject if self._ca is None else self._ca.subject
        built = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
        built = (
            built.serial_number(x509.random_serial_number()).not_valid_before(now - _DAY).not_valid_after(now + _DAY)
        )
        built = built.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        here = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        return built.add_extension(x509.SubjectAlternativeName(here), critical=False).sign(self._key, hashes.SHA256())


def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _write(path: Path, what: rsa.RSAPrivateKey | x509.Certificate) -> None:
    pem = serialization.Encoding.PEM
    if isinstance(what, x509.Certificate):
        path.write_bytes(what.public_bytes(pem))
    else:
        kind, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        path.write_bytes(what.private_bytes(pem, kind, plain))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def fitting(document: Any) -> Any:
    """A definition of today as Kubernetes 1.20 takes it: without rules in CEL, and lists of maps as plain lists, since
    their keys may have an empty text by default, which it refuses."""
    if isinstance(document, list):
        return [fitting(item) for item in document]
    if not isinstance(document, dict):
        return document
    kept = {k: fitting(v) for k, v in document.items() if k not in _GONE and (k, v) != ("default", "")}
    return kept | {"x-kubernetes-list-type": "atomic"} if kept.get("x-kubernetes-list-type") == "map" else kept


def wait_for(look: Callable[[], Any], most_s: float = 30.0) -> Any:
    """What ``look`` finds, once it finds something; a server that does not answer yet has nothing."""
    until, last = time.monotonic() + most_s, None
    while time.monotonic() < until:
        try:
            if found := look():
                return found
        except (KubeError, AssertionError) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"not so after {most_s:g} s: {last}")
