"""What happens in a study, as it happens: server-sent events, that can be taken up again where they broke off."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from tuner.app.service.access import Guarded, Reader
from tuner.app.service.problems import Refused
from tuner.app.service.service import Here, Service
from tuner.study.lifecycle import StudyState
from tuner.study.records import Event
from tuner.study.statements import STATE_EVENT

routes = APIRouter(route_class=Guarded, prefix="/v1/studies", tags=["studies"])
TOKEN_S = 5.0  # how often it is looked at whether a listener's token still is one, while events come; else at silences
_OVER = (StudyState.DECIDED, StudyState.FAILED, StudyState.CANCELLED)


@routes.get("/{name}/events", summary="What happens, as it happens", response_class=StreamingResponse)
async def events(
    name: str,
    request: Request,
    service: Here,
    caller: Reader,
    last_event_id: Annotated[int, Header(ge=0, le=2**31 - 1)] = 0,
) -> StreamingResponse:
    """Server-sent events from the one behind ``Last-Event-ID`` on; the stream ends when the study has ended, and after
    the event that it was paused. Whoever then asks for what comes behind that event waits until it goes on."""
    await run_in_threadpool(service.require, name)
    busy = service.watchers.sit(caller.token)
    if busy is not None:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, busy, headers={"Retry-After": "10"})
    stream = _stream(service, name, last_event_id, request)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return _Seated(stream, headers, partial(service.watchers.rise, caller.token))


class _Seated(StreamingResponse):
    """A stream whose seat is given back at its end, whatever that is."""

    def __init__(self, stream: AsyncIterator[str], headers: dict[str, str], rise: Callable[[], None]) -> None:
        super().__init__(stream, media_type="text/event-stream", headers=headers)
        self._rise = rise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._rise()


async def _stream(service: Service, name: str, after: int, request: Request) -> AsyncIterator[str]:
    """To the end of the study, or of the token that asked: whoever shows another then goes on where it broke off."""
    yield "retry: 2000\n\n"
    looked_at = time.monotonic()
    async for event in service.watchers.events(name, after):
        if event is None or time.monotonic() - looked_at > TOKEN_S:
            looked_at = time.monotonic()
            if await service.doorkeeper.has_gone(request):
                yield ": this token has ended\n\n"
                return
        if event is None:
            if await request.is_disconnected():
                return
            yield ": nothing new\n\n"
            over = await _over(service, name)
        else:
            yield _text(event)
            over = await _rests(service, name, event)
        if over:
            return


async def _over(service: Service, name: str) -> bool:
    state = await run_in_threadpool(service.store.listing.state, name)
    return state is None or state in _OVER


async def _rests(service: Service, name: str, event: Event) -> bool:
    """Whether an event says that nothing more will come for now, and is the last."""
    if event.kind != STATE_EVENT or json.loads(event.data)["state"] not in (*_OVER, StudyState.PAUSED):
        return False
    return not await run_in_threadpool(service.store.events.after, name, event.number, 1)


def _text(event: Event) -> str:
    return f"id: {event.number}\nevent: {event.kind}\ndata: {event.data}\n\n"
