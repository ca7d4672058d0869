"""Who asks, what that account may still take, and what everybody asked."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from tuner.app.answers.audit import AccountAnswer, AuditAnswer, account_answer, audit_entry_answer
from tuner.app.service.access import Admin, Guarded, Reader
from tuner.app.service.service import Here

routes = APIRouter(route_class=Guarded, prefix="/v1", tags=["accounts"])


@routes.get("/account", summary="Who asks, and what it may take")
def account(service: Here, caller: Reader) -> AccountAnswer:
    """Its quota, and what it has spent of that."""
    standing, studies = service.store.quotas.standing(caller.token), service.store.orders.running(caller.token)
    return account_answer(standing, caller.scope.value, studies, service.settings.limits.open_studies)


@routes.get("/audit", summary="Who asked what")
def audit(
    service: Here,
    caller: Admin,
    since: Annotated[float | None, Query(ge=0, le=1e11, description="Not before, s since 1970.")] = None,
    cursor: Annotated[int | None, Query(ge=0, le=2**31 - 1, description="Where the page before ended.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> AuditAnswer:
    """The newest first, a page at a time. Reading is not kept in it."""
    found = service.store.audit.page(limit + 1, since, cursor)
    more = str(found[limit - 1].number) if len(found) > limit else None
    return AuditAnswer(entries=[audit_entry_answer(entry) for entry in found[:limit]], next=more)
