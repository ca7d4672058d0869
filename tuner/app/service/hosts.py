"""By which names a service without tokens may be asked: those of its own machine, and by no page of another origin.

A browser on the machine would else carry any web page's requests to it: under a name that its owner points to a
loopback address (DNS rebinding), or as a POST to another origin.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit

from tuner.app.service.problems import Refused

_OWN = frozenset({"localhost", "127.0.0.1", "::1"})


def require_own(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise Refused where ``Host`` is not this machine, or ``Origin`` not the host that is asked."""
    sent = {name.lower(): value.decode("latin-1") for name, value in headers}
    host, origin = sent.get(b"host", ""), sent.get(b"origin")
    if _name(f"//{host}") not in _OWN:
        words = "a service without tokens is asked as localhost, 127.0.0.1 or [::1]"
        raise Refused(HTTPStatus.MISDIRECTED_REQUEST, words)
    if origin is not None and _netloc(origin) != host.lower():
        raise Refused(HTTPStatus.FORBIDDEN, "a page of another origin may not ask a service without tokens")


def _netloc(origin: str) -> str | None:
    """Host and port of an origin; None of one that is none, such as ``null``."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None
