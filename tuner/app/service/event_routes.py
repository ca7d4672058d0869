"""What happens in a study, as it happens: server-sent events, that can be taken up again where they broke off."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from tuner.app.service.access import Reader
from tuner.app.service.problems import Refused
from tuner.app.service.service import Here, Service
from tuner.study.lifecycle import StudyState
from tuner.study.records import Event
from tuner.study.statements import STATE_EVENT

routes = APIRouter(prefix="/v1/studies", tags=["studies"])
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
    if service.watchers.full:
        busy = "too many listen already"
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, busy, headers={"Retry-After": "10"})
    stream = _stream(service, name, last_event_id, request)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def _stream(service: Service, name: str, after: int, request: Request) -> AsyncIterator[str]:
    yield "retry: 2000\n\n"
    async for event in service.watchers.events(name, after):
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
