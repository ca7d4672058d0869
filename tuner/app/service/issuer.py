"""Tokens of an identity provider (OpenID Connect): signed by its keys, for this service, good now, and whose they are.

RFC 7519 and RFC 8725 say what is to be checked.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

from tuner.app.service.provider_keys import ANSWER_S, ProviderKeys, trusted
from tuner.errors import BadInput
from tuner.study.accounts import Scope

# Signatures of key pairs alone: a key that everybody may read signs nothing (RFC 8725, section 3.1).
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY_S = 30.0  # by which clocks may differ
_MOST_CHARACTERS = 16_000


class NotOurs(Exception):
    """The token is not one of the provider's for this service, or not any more; its text says why."""


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
        if not trusted(url):
            raise BadInput("--oidc-issuer", url, "an https address; http on this machine alone")
        if not audience:
            raise BadInput("--oidc-audience", audience, "whom the provider's tokens for this service are for")
        self.url, self.audience, self.scope_claim, self._prefix = url, audience, scope_claim, prefix
        self._keys = ProviderKeys(url, clock)

    async def ready(self, text: str) -> None:
        """Wait until ``identify`` has nothing to wait for: no thread is held meanwhile, whatever the provider does."""
        try:
            coming = self._keys.coming(_key_name(text))
        except (NotOurs, PyJWTError):
            return
        if coming is not None:
            await asyncio.wait([asyncio.wrap_future(coming)], timeout=ANSWER_S)

    def identify(self, text: str, wait_s: float = ANSWER_S) -> Identity:
        """Whose a token is; raises NotOurs, or Unreachable where its key is not there within ``wait_s``."""
        try:
            name = _key_name(text)
            key = self._keys.find(name, wait_s)
            if key is None:
                raise NotOurs(f"the provider has no signing key {name!r}")
            claims = jwt.decode(
                text,
                key,
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


def _key_name(text: str) -> str:
    """The key by which a token says that it is signed; raises NotOurs or PyJWTError for what no key of ours can be."""
    if len(text) > _MOST_CHARACTERS:
        raise NotOurs("it is too long")
    header = jwt.get_unverified_header(text)
    if header.get("alg") not in ALGORITHMS:
        raise NotOurs("it is not signed by an algorithm of key pairs")
    if not header.get("kid"):
        raise NotOurs("it names no signing key")
    return str(header["kid"])


def _account(subject: str) -> str:
    """The subject, marked as the provider's; a digest where it is too long for an account, or not fit to be read."""
    if subject.isprintable() and len(subject) <= 50:
        return f"oidc:{subject}"
    return f"oidc#{hashlib.sha256(subject.encode(errors='surrogatepass')).hexdigest()[:40]}"
