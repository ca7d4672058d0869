"""Who may ask: bearer tokens, their scopes, and how often each may ask."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from threading import Lock
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tuner.app.service.problems import Refused
from tuner.study.accounts import Accounts, Scope

BEARER = HTTPBearer(auto_error=False, description="A token of `parlay token create`.")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks; ``token`` is empty where the service wants none to be shown."""

    token: str
    scope: Scope


class Rates:
    """A bucket of requests for each token: so many at once, refilled at so many a second."""

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._lock, self._left = Lock(), dict[str, tuple[float, float]]()

    def wait_s(self, token: str) -> float:
        """Take one; 0 where there was one, else in how many seconds there will be."""
        with self._lock:
            now = self._clock()
            left, at = self._left.get(token, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._per_s)
            enough = left >= 1
            self._left[token] = (left - 1 if enough else left, now)
            return 0.0 if enough else (1 - left) / self._per_s


@dataclass(frozen=True, slots=True)
class Doorkeeper:
    """Checks each request; ``accounts`` None lets in everybody, as the service's only caller is its own machine."""

    accounts: Accounts | None
    rates: Rates

    def admit(self, credentials: HTTPAuthorizationCredentials | None, needed: Scope) -> Caller:
        """The caller; raises Refused with 401, 403 or 429."""
        caller = Caller("", Scope.ADMIN)
        if self.accounts is not None:
            shown = credentials.credentials if credentials else ""
            token = self.accounts.check(shown)
            if token is None:
                words = "this token is unknown, expired or revoked" if shown else "a bearer token is needed"
                raise Refused(HTTPStatus.UNAUTHORIZED, words, headers={"WWW-Authenticate": "Bearer"})
            caller = Caller(token.id, token.scope)
        if not caller.scope.allows(needed):
            words = f"the token's scope is {caller.scope.value}, and this needs {needed.value}"
            raise Refused(HTTPStatus.FORBIDDEN, words)
        wait_s = self.rates.wait_s(caller.token)
        if wait_s > 0:
            after = {"Retry-After": str(int(wait_s) + 1)}
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, "this token asks too often", headers=after)
        return caller


def _needs(scope: Scope) -> Callable[..., Caller]:
    def check(request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> Caller:
        keeper: Doorkeeper = request.app.state.service.doorkeeper
        return keeper.admit(credentials, scope)

    return check


Reader = Annotated[Caller, Depends(_needs(Scope.READ))]
Tuner = Annotated[Caller, Depends(_needs(Scope.TUNE))]
Admin = Annotated[Caller, Depends(_needs(Scope.ADMIN))]
