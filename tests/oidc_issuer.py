"""A tiny identity provider on the loopback: its discovery document, its keys, and the tokens that it signs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "parlay"


@cache
def private_key(kind: str = "RS256", number: int = 0) -> Any:
    """A key pair of that kind; the same for the same number."""
    made = {
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "short": lambda: rsa.generate_private_key(65537, 1024),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }
    return made[kind]()


def jwk(kid: str, kind: str = "RS256", number: int = 0, **more: Any) -> dict[str, Any]:
    """The public half, as a provider publishes it."""
    algorithm = "RS256" if kind == "short" else kind
    public = private_key(kind, number).public_key()
    found = jwt.get_algorithm_by_name(algorithm).to_jwk(public, as_dict=True)
    return {**found, "kid": kid, "use": "sig", "alg": algorithm, **more}


class OidcIssuer:
    """What it publishes may be changed at any time; ``asked`` are the paths that were asked for."""

    def __init__(self, url: str) -> None:
        self.url, self.asked = url, list[str]()
        self.document: dict[str, Any] = {"issuer": url, "jwks_uri": f"{url}/keys"}
        self.keys: list[dict[str, Any]] = [jwk("first")]
        self.status = 200

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Of a token that is good; None leaves a claim out."""
        now = time.time()
        good = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "ada",
            "exp": now + 300,
            "iat": now,
            "scope": "openid parlay:tune",
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, kind: str = "RS256", number: int = 0, kid: str | None = "first", **changes: Any) -> str:
        """A token that it signs."""
        headers = {} if kid is None else {"kid": kid}
        algorithm = "RS256" if kind == "short" else kind
        return jwt.encode(self.claims(**changes), private_key(kind, number), algorithm=algorithm, headers=headers)

    def answer(self, path: str) -> tuple[int, bytes]:
        self.asked.append(path)
        found = {"/.well-known/openid-configuration": self.document, "/keys": {"keys": self.keys}}.get(path)
        return (404, b"{}") if found is None else (self.status, json.dumps(found).encode())


@contextmanager
def oidc_issuer() -> Iterator[OidcIssuer]:
    """One that answers to the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = issuer.answer(self.path)
            self.send_response(status)
            self.send_header("Location", "/keys")  # of no use but to a redirection
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = OidcIssuer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
