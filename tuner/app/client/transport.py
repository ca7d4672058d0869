"""Requests to a service over HTTP: its address, the token, timeouts, and errors as those of this side."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tuner.app.client.problems import error_of
from tuner.errors import BadInput, ServiceError

if TYPE_CHECKING:
    import httpx

CONNECT_S, ANSWER_S = 10.0, 120.0
SILENT_S = 45.0  # a stream of events says something three times as often
TRIES = 4  # of what may be asked again: reads, and what the service had no room for
_MOST_PAUSE_S = 10.0
_BUSY = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class Transport:
    """One service. Safe to use from several threads."""

    def __init__(self, url: str, token: str | None) -> None:
        """Raises BadInput for an address that is none, or that holds a secret."""
        import httpx

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput("--server", url, "an address such as https://parlay.example.com")
        if parts.username or parts.password or parts.query:
            raise BadInput("--server", parts.hostname, "an address alone; the token is taken from PARLAY_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=timeout)
        self._where = f"{parts.scheme}://{parts.netloc}"

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        asked: str,
        *,
        body: Mapping[str, object] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The answer. ``asked`` names what it is about, for an error. Raises as ``error_of`` says, and ServiceError
        where no answer comes."""
        import httpx

        again = method == "GET" or (headers is not None and "Idempotency-Key" in headers)
        for left in reversed(range(TRIES)):
            try:
                response = self._http.request(method, path, json=body, params=params, headers=headers)
            except httpx.TransportError as error:
                if not (again and left):
                    raise self._unreachable(error) from None
                time.sleep(0.5)
                continue
            if response.status_code == HTTPStatus.TOO_MANY_REQUESTS and "Retry-After" not in response.headers:
                break
            if not (left and response.status_code in _BUSY and (again or "Retry-After" in response.headers)):
                break
            time.sleep(_pause_s(response.headers.get("Retry-After")))
        if response.is_error:
            raise error_of(response.status_code, _problem(response), asked)
        return response

    @contextmanager
    def lines(self, path: str, asked: str, headers: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """The lines of a stream, as they come; raises as ``ask`` does, in the middle too."""
        import httpx

        timeout = httpx.Timeout(SILENT_S, connect=CONNECT_S)
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.status_code in (*_BUSY, *range(HTTPStatus.INTERNAL_SERVER_ERROR, 600)):
                    raise ServiceError(f"{self._where} answers with status {response.status_code}")
                if response.is_error:
                    response.read()
                    raise error_of(response.status_code, _problem(response), asked)
                yield response.iter_lines()
        except httpx.TransportError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> ServiceError:
        return ServiceError(f"no answer of {self._where}: {error or type(error).__name__}")


def _pause_s(after: str | None) -> float:
    return min(float(after), _MOST_PAUSE_S) if after and after.isdigit() else 1.0


def _problem(response: httpx.Response) -> dict[str, object]:
    try:
        found = json.loads(response.text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
