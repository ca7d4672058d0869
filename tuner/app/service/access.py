"""Who may ask: bearer tokens, their scopes, and how often each may ask.

A token is one of ours, which the store knows, or one of the identity provider that the service was started with. It is
looked at before anything else of a request, its body above all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from tuner.app.service.joined_reads import JoinedReads
from tuner.app.service.problems import Refused
from tuner.app.service.rates import Rates, neighbourhood
from tuner.study.accounts import Scope, Token

if TYPE_CHECKING:
    from tuner.app.service.issuer import Issuer

BEARER = HTTPBearer(auto_error=False, description="A token of `parlay token create`, or of the identity provider.")
_FAILURES = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: its account, as ``token``, which is empty where the service wants none to be shown."""

    token: str
    scope: Scope


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """Checks each request; ``tokens`` None lets in everybody, as the service's only caller is its own machine."""

    tokens: JoinedReads[str, Token | None] | None
    rates: Rates
    failures: Rates
    issuer: Issuer | None = None

    async def admit(self, request: Request, needed: Scope) -> Caller:
        """The caller, who stays with the request; raises Refused with 401, 403, 429, or 503 where nobody can say."""
        caller = await self.known(await _shown(request))
        request.state.caller = caller
        if not caller.scope.allows(needed):
            words = f"the token's scope is {caller.scope.value}, and this needs {needed.value}"
            raise Refused(HTTPStatus.FORBIDDEN, words)
        _require_now(self.rates, caller.token, "this token asks too often")
        return caller

    async def known(self, shown: str) -> Caller:
        """Whose a token is: the only place where one is looked up. Raises Refused with 401, 403 or 503."""
        if self.tokens is None:
            return Caller("", Scope.ADMIN)
        if self.issuer is not None and shown.count(".") == 2:
            await self.issuer.ready(shown)
            return await run_in_threadpool(_identified, self.issuer, shown)
        token = await self.tokens.of(shown)
        if token is None:
            raise _unauthorized("this token is unknown, expired or revoked" if shown else "a bearer token is needed")
        return Caller(token.id, token.scope)

    async def has_gone(self, request: Request) -> bool:
        """Whether the token of a request that was admitted has ended since; not where that cannot be said now."""
        try:
            await self.known(await _shown(request))
        except Refused as refused:
            return refused.status is HTTPStatus.UNAUTHORIZED
        return False

    def limited(self, request: Request, refused: Refused) -> Refused:
        """The refusal; or, where its address was refused too often, that in its place, so that nobody probes in haste.

        Only refusals count, and only refusals become another: an address may be that of a proxy, behind which the next
        caller's token is good. Callers are told apart by their tokens where these are known.
        """
        if self.tokens is None or refused.status not in _FAILURES:
            return refused
        caller: Caller | None = getattr(request.state, "caller", None)
        address = neighbourhood(request.client.host) if request.client is not None else ""
        try:
            _require_now(self.failures, f"{address} {caller.token if caller else ''}", "too much was refused from here")
        except Refused as too_often:
            return too_often
        return refused


class Guarded(APIRoute):
    """A route whose caller is admitted before its body is read, by the scope that one of its parameters needs."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        needed = scope_of(self)
        if needed is None:
            return handle

        async def guarded(request: Request) -> Response:
            keeper: Doorkeeper = request.app.state.service.doorkeeper
            await keeper.admit(request, needed)
            return await handle(request)

        return guarded


def scope_of(route: APIRoute) -> Scope | None:
    """The scope that a route needs; None where it needs none."""
    found = (_NEEDED[one.call] for one in route.dependant.dependencies if one.call in _NEEDED)
    return next(found, None)


async def _shown(request: Request) -> str:
    credentials = await BEARER(request)
    return credentials.credentials if credentials else ""


def _identified(issuer: Issuer, shown: str) -> Caller:
    from tuner.app.service.issuer import NotOurs
    from tuner.app.service.provider_keys import Unreachable

    try:
        identity = issuer.identify(shown, 0.0)
    except NotOurs as error:
        raise _unauthorized(f"this token is none of {issuer.url}: {error}") from None
    except Unreachable as error:
        words = f"tokens of {issuer.url} cannot be checked now: {error}"
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, words, headers={"Retry-After": "5"}) from None
    if identity.scope is None:
        raise Refused(HTTPStatus.FORBIDDEN, f"the token has no scope of this service in its claim {issuer.scope_claim}")
    return Caller(identity.account, identity.scope)


def _unauthorized(words: str) -> Refused:
    return Refused(HTTPStatus.UNAUTHORIZED, words, headers={"WWW-Authenticate": "Bearer"})


def _require_now(rates: Rates, key: str, words: str) -> None:
    wait_s = rates.wait_s(key)
    if wait_s > 0:
        raise Refused(HTTPStatus.TOO_MANY_REQUESTS, words, headers={"Retry-After": str(int(wait_s) + 1)})


_NEEDED: dict[Any, Scope] = {}


def _needs(scope: Scope) -> Callable[..., Awaitable[Caller]]:
    async def admitted(request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> Caller:
        caller: Caller = request.state.caller  # of ``Guarded``
        return caller

    _NEEDED[admitted] = scope
    return admitted


Reader = Annotated[Caller, Depends(_needs(Scope.READ))]
Tuner = Annotated[Caller, Depends(_needs(Scope.TUNE))]
Admin = Annotated[Caller, Depends(_needs(Scope.ADMIN))]
