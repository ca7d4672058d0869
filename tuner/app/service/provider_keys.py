"""The keys that an identity provider publishes: fetched by one thread for all who need them, and kept for a while.

OpenID Connect Discovery 1.0 says where they are; no address is ever taken from a token. While the provider hangs,
made-up keys cost one thread, however many they are, and keep nobody waiting whose key is known.
"""

from __future__ import annotations

import http.client
import json
import math
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Any
from urllib.parse import urlsplit

import jwt
from jwt.exceptions import PyJWTError

KEYS_S = 300.0  # for so long keys are kept; a key that is gone from the provider is good for that long
AGAIN_S = 5.0  # so long after a try that failed, and before keys are looked for that were not there, it is asked again
ANSWER_S = 3.0  # nobody waits longer for the provider, whatever it does
_MOST_BYTES = 1_000_000
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Unreachable(Exception):
    """Whether a key is one of the provider's cannot be said, as it does not answer as one; its text says why."""


class ProviderKeys:
    """Of the provider at ``url``, by their names. Nothing is asked of it before the first key is looked for, and never
    two things at a time. Safe to use from several threads."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._url, self._clock, self._lock = url, clock, threading.Lock()
        self._where: str | None = None
        self._kept: tuple[float, Mapping[str, jwt.PyJWK]] | None = None
        self._asked_at, self._failed = -math.inf, ""  # when it was asked last, and what was wrong then
        self._looking: tuple[float, Future[None]] | None = None

    def find(self, name: str, wait_s: float = ANSWER_S) -> jwt.PyJWK | None:
        """The key of that name, None where the provider has none; waits ``wait_s`` for its answer at most. Raises
        Unreachable where it did not answer, which is remembered for AGAIN_S."""
        coming = self.coming(name)
        if coming is not None:
            wait([coming], wait_s)
        with self._lock:
            now = self._clock()
            kept = self._fresh(now)
            if kept is not None and name in kept:
                return kept[name]
            if self._looking is not None:
                raise Unreachable(f"{self._url} has not answered yet")
            if self._failed and now - self._asked_at < AGAIN_S:
                raise Unreachable(self._failed)
            if kept is None:
                raise Unreachable(f"{self._url} was not asked in time")
            return None

    def coming(self, name: str) -> Future[None] | None:
        """The end of the look at the provider that has to be waited for, begun here where none is under way. None where
        there is nothing to wait for: the key is at hand, the provider was asked just now, or it hangs."""
        with self._lock:
            now = self._clock()
            kept = self._fresh(now)
            if kept is not None and name in kept:  # while the provider does not answer, it goes on to be good
                return None
            if self._looking is not None:
                began, coming = self._looking
                return coming if now - began < ANSWER_S else None
            if now - self._asked_at < AGAIN_S:
                return None
            coming = Future()
            self._looking = now, coming
        threading.Thread(target=self._look, args=(coming,), name="provider keys", daemon=True).start()
        return coming

    def _fresh(self, now: float) -> Mapping[str, jwt.PyJWK] | None:
        return None if self._kept is None or now - self._kept[0] >= KEYS_S else self._kept[1]

    def _look(self, done: Future[None]) -> None:
        found, failed = None, "its keys cannot be read"
        try:
            found = self._fetched()
        except (PyJWTError, Unreachable, ValueError, TypeError, AttributeError) as error:  # the last two: no objects
            failed = str(error) or failed
        finally:
            with self._lock:
                self._asked_at, self._looking = self._clock(), None
                if found is None:
                    self._failed, self._where = failed, None  # where its keys are may have changed
                else:
                    self._failed, self._kept = "", (self._asked_at, found)
            done.set_result(None)

    def _fetched(self) -> Mapping[str, jwt.PyJWK]:
        self._where = self._where or self._discovered()
        published = jwt.PyJWKSet.from_dict(_document(self._where, "keys")).keys
        signing = [key for key in published if key.key_id and key.public_key_use in ("sig", None)]
        if not signing:
            raise Unreachable(f"no signing key at {self._where}")
        return {str(key.key_id): key for key in reversed(signing)}  # of two that are called the same, the first

    def _discovered(self) -> str:
        document = _document(f"{self._url.rstrip('/')}/.well-known/openid-configuration", "discovery document")
        if document.get("issuer") != self._url:
            raise Unreachable(f"its discovery document is that of {document.get('issuer')!r}")
        where = document.get("jwks_uri")
        if not isinstance(where, str) or not trusted(where, also_plain=urlsplit(self._url).scheme == "http"):
            raise Unreachable("its discovery document names no https address of its keys")
        return where


def trusted(url: str, also_plain: bool = True) -> bool:
    """An https address, or ``also_plain`` one of this machine."""
    try:
        parts = urlsplit(url)
        plain = also_plain and parts.scheme == "http" and parts.hostname in _LOOPBACK
        return (parts.scheme == "https" or plain) and bool(parts.hostname) and not (parts.username or parts.query)
    except ValueError:
        return False


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the address is the operator's word."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _document(url: str, what: str) -> dict[str, Any]:
    until, body = time.perf_counter() + ANSWER_S, b""
    try:
        with urllib.request.build_opener(_Straight).open(url, timeout=ANSWER_S) as answer:
            while piece := answer.read1(65_536):
                body += piece
                if time.perf_counter() > until or len(body) > _MOST_BYTES:
                    raise Unreachable(f"no {what} at {url}: more than {_MOST_BYTES} bytes, or {ANSWER_S:g} s")
        found = json.loads(body)
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, OSError, ValueError) as error:
        raise Unreachable(f"no {what} at {url}: {error}") from None
    if not isinstance(found, dict):
        raise Unreachable(f"no {what} at {url}: no JSON object")
    return found
