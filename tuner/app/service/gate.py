"""What every request passes first, and every answer last: limits of a body, security headers, the count of it all."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuner.app.service.hosts import require_own
from tuner.app.service.metrics import ServiceMetrics
from tuner.app.service.problems import FAULT, Refused, as_problem
from tuner.app.service.service import Limits

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


class Gate:
    """Refuses bodies that are too long or too slow and, if ``own_only``, other names than this machine's; puts security
    headers on every answer, that of a fault too, and counts it."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: ServiceMetrics, own_only: bool) -> None:
        self._app, self._limits, self._metrics, self._own_only = app, limits, metrics, own_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, started, body = time.perf_counter(), False, Body(receive, self._limits, scope)

        async def secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                route = getattr(scope.get("route"), "path", "unknown")
                self._metrics.answered(route, scope["method"], message["status"], time.perf_counter() - began)
                named = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in _HEADERS if pair[0] not in named)]
                if body.left:  # nobody reads it any more: the connection ends with the answer
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            if self._own_only:
                require_own(scope["headers"])
            await self._app(scope, body.receive, secured)
        except Refused as refused:
            await as_problem(refused)(scope, receive, secured)
        except Exception:
            if not started:
                await as_problem(FAULT)(scope, receive, secured)
            raise  # for the log


class Body:
    """The body of a request as it comes: so many bytes at most, and all of them within so many seconds from the first
    look at it. Who waits longer, or sends more, is refused."""

    def __init__(self, receive: Receive, limits: Limits, scope: Scope) -> None:
        self._receive, self._limits = receive, limits
        self._got, self._until = 0, 0.0
        sent = dict(scope["headers"])
        self.left = b"transfer-encoding" in sent or sent.get(b"content-length", b"0") != b"0"

    async def receive(self) -> Message:
        """The next piece; behind the last one, whatever comes."""
        if not self.left:
            return await self._receive()
        now = time.monotonic()
        self._until = self._until or now + self._limits.body_s
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - now))
        except TimeoutError:
            words = f"a body has to be there within {self._limits.body_s:g} s"
            raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, words) from None
        self._got += len(message.get("body", b""))
        if self._got > self._limits.body_bytes:
            most = self._limits.body_bytes
            raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {most} bytes")
        self.left = message["type"] == "http.request" and message.get("more_body", False)
        return message
