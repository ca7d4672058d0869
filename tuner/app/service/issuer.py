"""Tokens of an identity provider (OpenID Connect): signed by its keys, for this service, good now, and whose they are.

OpenID Connect Discovery 1.0 says where the keys are; RFC 7519 and RFC 8725 what is to be checked. No address is ever
taken from a token.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import jwt
from jwt.exceptions import PyJWKClientConnectionError, PyJWKClientError, PyJWKSetError, PyJWTError

from tuner.errors import BadInput
from tuner.study.accounts import Scope

# Signatures of key pairs alone: a key that everybody may read signs nothing (RFC 8725, section 3.1).
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_S = 30.0  # by which clocks may differ
KEYS_S = 300.0  # for so long keys are kept; a key that is gone from the provider is good for that long
AGAIN_S = 5.0  # so long after a try that failed, and before keys are looked for that were not there, it is asked again
ANSWER_S = 3.0
_MOST_CHARACTERS, _MOST_BYTES = 16_000, 1_000_000
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class NotOurs(Exception):
    """The token is not one of the provider's for this service, or not any more; its text says why."""


class Unreachable(Exception):
    """Whether it is one cannot be said, as the provider does not answer as one; its text says why."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose a token is: the account by which it is known here, and its scope; None where it has none of ours."""

    account: str
    scope: Scope | None


class Issuer:
    """The identity provider at ``url``, whose tokens for ``audience`` are let in. Safe to use from several threads.

    ``scope_claim`` names the claim with the scopes, dots between the levels, as a list or as words between blanks; of
    these, read, tune and admin behind ``prefix`` are ours. Nothing is asked of the provider before the first token.
    """

    def __init__(
        self,
        url: str,
        audience: str,
        scope_claim: str = "scope",
        prefix: str = "parlay:",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises BadInput for an address to which no secret may be trusted, and where no audience is named."""
        if not _trusted(url):
            raise BadInput("--oidc-issuer", url, "an https address; http on this machine alone")
        if not audience:
            raise BadInput("--oidc-audience", audience, "whom the provider's tokens for this service are for")
        self.url, self.audience, self.scope_claim, self._prefix = url, audience, scope_claim, prefix
        self._clock, self._lock = clock, threading.Lock()
        self._keys: jwt.PyJWKClient | None = None
        self._failed: tuple[float, str] | None = None

    def identify(self, text: str) -> Identity:
        """Whose a token is; raises NotOurs or Unreachable."""
        if len(text) > _MOST_CHARACTERS:
            raise NotOurs("it is too long")
        try:
            header = jwt.get_unverified_header(text)
            if header.get("alg") not in ALGORITHMS:
                raise NotOurs("it is not signed by an algorithm of key pairs")
            claims = jwt.decode(
                text,
                self._key(str(header.get("kid") or "")),
                algorithms=ALGORITHMS,
                audience=self.audience,
                issuer=self.url,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
            )
        except PyJWTError as error:
            raise NotOurs(str(error)) from None
        if not claims["sub"]:
            raise NotOurs("it names nobody")
        return Identity(_account(claims["sub"]), self._scope(claims))

    def _scope(self, claims: Mapping[str, Any]) -> Scope | None:
        found: Any = claims.get(self.scope_claim)
        if found is None:
            found = claims
            for part in self.scope_claim.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        words = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
        ours = [scope for scope in Scope if f"{self._prefix}{scope.value}" in words]
        return ours[-1] if ours else None  # each allows what those before it do

    def _key(self, kid: str) -> jwt.PyJWK:
        if (kept := self._kept(kid)) is not None:  # nobody whose key is known waits for another's
            return kept
        with self._lock:  # one asks, the others have its answer
            if (kept := self._kept(kid)) is not None:
                return kept
            if self._failed is not None and self._clock() - self._failed[0] < AGAIN_S:
                raise Unreachable(self._failed[1])
            try:
                self._keys = self._keys or self._discovered()
                self._keys.get_signing_keys()
            except (
                PyJWTError,
                Unreachable,
                ValueError,
                AttributeError,
            ) as error:  # the last, of keys that are no objects
                raise self._failing(error) from None
            try:
                found = self._keys.get_signing_key(kid)
            except (PyJWKClientConnectionError, PyJWKSetError, ValueError) as error:
                raise self._failing(error) from None
            except PyJWKClientError as error:
                raise NotOurs(str(error)) from None
            self._failed = None
            return found

    def _failing(self, error: Exception) -> Unreachable:
        """Remember that the provider failed; where its keys are may have changed."""
        self._failed = (self._clock(), str(error))
        if self._cached() is None:
            self._keys = None
        return Unreachable(str(error))

    def _kept(self, kid: str) -> jwt.PyJWK | None:
        """A key that was fetched not long ago: while the provider does not answer, it goes on to be good."""
        keys = self._cached()
        fit = (key for key in (keys.keys if keys else ()) if key.key_id == kid and key.public_key_use in ("sig", None))
        return next(fit, None) if kid else None

    def _cached(self) -> jwt.PyJWKSet | None:
        keys = self._keys  # read once: another thread may forget them
        cache = None if keys is None else keys.jwk_set_cache
        return None if cache is None else cache.get()

    def _discovered(self) -> jwt.PyJWKClient:
        document = _fetched(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self.url:
            raise Unreachable(f"its discovery document is that of {document.get('issuer')!r}")
        where = document.get("jwks_uri")
        if not isinstance(where, str) or not _trusted(where, also_plain=urlsplit(self.url).scheme == "http"):
            raise Unreachable("its discovery document names no https address of its keys")
        return jwt.PyJWKClient(where, lifespan=KEYS_S, timeout=ANSWER_S, cooldown_duration=AGAIN_S)


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the address is the operator's word."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _fetched(url: str) -> Mapping[str, Any]:
    try:
        with urllib.request.build_opener(_Straight).open(url, timeout=ANSWER_S) as answer:
            found = json.loads(answer.read(_MOST_BYTES))
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, OSError, ValueError) as error:
        raise Unreachable(f"no discovery document at {url}: {error}") from None
    if not isinstance(found, dict):
        raise Unreachable(f"no discovery document at {url}: no JSON object")
    return found


def _trusted(url: str, also_plain: bool = True) -> bool:
    """An https address, or ``also_plain`` one of this machine."""
    try:
        parts = urlsplit(url)
        plain = also_plain and parts.scheme == "http" and parts.hostname in _LOOPBACK
        return (parts.scheme == "https" or plain) and bool(parts.hostname) and not (parts.username or parts.query)
    except ValueError:
        return False


def _account(subject: str) -> str:
    """The subject, marked as the provider's; a digest where it is too long for an account, or not fit to be read."""
    if subject.isprintable() and len(subject) <= 50:
        return f"oidc:{subject}"
    return f"oidc#{hashlib.sha256(subject.encode(errors='surrogatepass')).hexdigest()[:40]}"
