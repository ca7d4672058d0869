"""Where a load is sent: address, protocol, model, keys and certificates."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from serve.load.request_fields import VLLM_FIELDS, RequestFields
from tuner.errors import BadInput

_OURS = ("host", "accept", "content-type", "content-length", "transfer-encoding", "connection")
_FORBIDDEN = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server: ``url`` without ``/v1``, and the model name that requests carry.

    ``chat`` asks for ``/v1/chat/completions`` instead of ``/v1/completions``. ``headers`` go with every request and
    are never shown, as they may hold a key. ``ca_file`` is a PEM file of the authorities to trust instead of the
    system's; the certificate of an ``https`` server is always checked. No proxy is used. ``fields`` are those of its
    requests that it may refuse. Raises BadInput for what cannot be sent to.
    """

    url: str
    model: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    chat: bool = False
    ca_file: Path | None = None
    fields: RequestFields = VLLM_FIELDS

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or _FORBIDDEN.search(self.url):
            raise BadInput("url", self.url, "http://HOST[:PORT] or https://HOST[:PORT]")
        if parts.username is not None or parts.password is not None:
            raise BadInput("url", "an address with a name or password", "an API key by variable or file")
        try:
            _ = parts.port
        except ValueError:
            raise BadInput("url", self.url, "a port of 0 to 65535") from None
        names = [name.lower() for name, _ in self.headers]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise BadInput("headers", twice, "each header once")
        for name, value in self.headers:
            if not name.isascii() or not name.isprintable() or ":" in name or " " in name or _FORBIDDEN.search(value):
                raise BadInput("headers", name, "names and values of one line")
        if self.ca_file is not None and parts.scheme != "https":
            raise BadInput("ca_file", self.ca_file, "only with https")

    @property
    def request_path(self) -> str:
        """Path of the endpoint that answers a request."""
        prefix = urlsplit(self.url).path.rstrip("/")
        return prefix + ("/v1/chat/completions" if self.chat else "/v1/completions")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None  # checked when it was made
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)

    def tls(self) -> ssl.SSLContext | None:
        """The context of an ``https`` endpoint, which checks certificate and host name; None for ``http``.

        Raises BadInput when ``ca_file`` holds no certificate.
        """
        if urlsplit(self.url).scheme != "https":
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise BadInput("ca_file", self.ca_file, f"a readable PEM file of certificates ({error})") from None
        context.set_alpn_protocols(["http/1.1"])
        return context

    def request_head(self) -> bytes:
        """Request line and headers up to the length of the body, which is all that differs between requests."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        lines = [
            f"POST {self.request_path} HTTP/1.1",
            f"Host: {host}",
            "Accept: text/event-stream",
            "Content-Type: application/json",
            *(f"{name}: {value}" for name, value in self.headers),
            "Content-Length: ",
        ]
        return "\r\n".join(lines).encode()


def bearer(variable: str | None = None, file: Path | None = None) -> tuple[tuple[str, str], ...]:
    """The ``Authorization`` header for the API key in an environment variable or a file; none of neither.

    The key is never part of a message. Raises BadInput when the place named holds no key.
    """
    if variable is not None and file is not None:
        raise BadInput("api key", "a variable and a file", "one of them")
    if variable is not None:
        where, key = f"environment variable {variable}", os.environ.get(variable, "").strip()
    elif file is not None:
        where = f"file {file}"
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput("api key", where, f"a readable text file ({type(error).__name__})") from None
    else:
        return ()
    if not key or not key.isascii() or not key.isprintable():
        raise BadInput("api key", where, "a place that holds a key of one line")
    return (("Authorization", f"Bearer {key}"),)


def extra_headers(given: Sequence[str], from_variables: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Headers of ``NAME=VALUE``, and of ``NAME=VARIABLE`` whose value an environment variable holds.

    A value is never part of a message. Raises BadInput for what is neither, for a variable that is not set, and for a
    header that is the client's own.
    """
    found = []
    for option, text in [*(("--header", text) for text in given), *(("--header-env", text) for text in from_variables)]:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise BadInput(option, name or "nothing", "NAME=VALUE" if option == "--header" else "NAME=VARIABLE")
        if name.lower() in _OURS:
            raise BadInput(option, name, "a header that the client does not set itself")
        if option == "--header-env":
            variable, value = value, os.environ.get(value, "").strip()
            if not value:
                raise BadInput(option, f"environment variable {variable}", "one that holds a value")
        found.append((name, value.strip()))
    return tuple(found)
