"""What is deployed of a study, and what humans ask of its watcher."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from tuner.app.answers.base import Answer
from tuner.app.answers.picture import PictureAnswer
from tuner.app.answers.watch import WatchAnswer
from tuner.app.service.access import Admin, Caller, Guarded, Reader, Tuner
from tuner.app.service.problems import bad
from tuner.app.service.service import Here, Service, conflict
from tuner.app.service.tagged import tagged
from tuner.app.watch.policy_file import policy_of
from tuner.app.watch.showing import watch_answer
from tuner.app.watch.wishes import say
from tuner.errors import BadInput
from tuner.retune.rollout import Wish

routes = APIRouter(route_class=Guarded, prefix="/v1/studies", tags=["deployed"])


class WatchBody(Answer):
    """How a study is to be watched."""

    policy: dict[str, Any] = Field(description="What is allowed; what is left out is as by default.")
    site: dict[str, Any] | None = Field(default=None, description="Where it serves; null: where it does already.")


@routes.get("/{name}/watch", summary="What is deployed, and how it stands", response_model=WatchAnswer)
async def watch(
    name: str, service: Here, caller: Reader, if_none_match: Annotated[str | None, Header(max_length=1000)] = None
) -> Response:
    """With the ``ETag`` of an answer as ``If-None-Match``: 304 while it holds."""
    found = await run_in_threadpool(_told, service, name)
    return tagged(found.model_dump_json().encode()).response(if_none_match)


@routes.get("/{name}/watch/picture", summary="The same over time, for a page that draws it")
def watch_picture(name: str, service: Here, caller: Reader) -> PictureAnswer:
    """Attainment, requests and layouts of the last day, as a chart for plotly.js."""
    from deploy.report.timeline_charts import timeline_figure
    from tuner.app.watch.timeline import timeline_of

    _told(service, name)
    figure = timeline_figure(timeline_of(service.store, name))
    return PictureAnswer(ended=False, sections=[], figures={} if figure is None else {"timeline": figure})


@routes.put("/{name}/watch", summary="Have it watched, or change what is allowed")
def put_watch(name: str, body: WatchBody, service: Here, caller: Admin) -> WatchAnswer:
    """What serves is left alone by this."""
    service.require(name)
    policy = _allowed(body.policy)
    known = service.store.watched.find(name)
    if known is None and body.site is None:
        raise bad(BadInput("site", None, "where it serves: nobody has said so yet"))
    try:
        site = known.site if body.site is None and known is not None else body.site or {}
        service.store.watched.watch(name, policy, site)
    except BadInput as error:
        raise conflict(error) from None
    service.noted(caller, "watch", name, "watched")
    return watch_answer(service.store, name)


@routes.delete("/{name}/watch", summary="Watch it no more")
def unwatch(name: str, service: Here, caller: Admin) -> WatchAnswer:
    """Its watcher stops; what serves goes on serving, and nobody looks after it."""
    before = _told(service, name)
    service.store.watched.unwatch(name)
    service.noted(caller, "unwatch", name, "not watched")
    return before.model_copy(update={"watched": False})


@routes.post("/{name}/watch/approve", summary="Agree to the rollout that waits, or to what is proposed")
def approve(name: str, service: Here, caller: Tuner) -> WatchAnswer:
    """Where the policy asks a human."""
    return _said(service, caller, name, Wish.APPROVE)


@routes.post("/{name}/watch/pause", summary="Have nothing begin or go on")
def pause(name: str, service: Here, caller: Tuner) -> WatchAnswer:
    """What serves goes on serving; a rollout that goes back is not stopped by it."""
    return _said(service, caller, name, Wish.PAUSE)


@routes.post("/{name}/watch/resume", summary="Let it go on")
def resume(name: str, service: Here, caller: Tuner) -> WatchAnswer:
    """After a pause."""
    return _said(service, caller, name, Wish.RESUME)


@routes.post("/{name}/watch/veto", summary="Go back, or refuse what is proposed")
def veto(name: str, service: Here, caller: Tuner) -> WatchAnswer:
    """The layout is not tried again."""
    return _said(service, caller, name, Wish.VETO)


@routes.post("/{name}/watch/force", summary="Promote whatever the canary says, or begin what is held back")
def force(name: str, service: Here, caller: Admin) -> WatchAnswer:
    """Against what the watcher would do by itself."""
    return _said(service, caller, name, Wish.FORCE)


def _told(service: Service, name: str) -> WatchAnswer:
    service.require(name)
    try:
        return watch_answer(service.store, name)
    except BadInput as error:
        raise bad(error, HTTPStatus.NOT_FOUND) from None


def _allowed(document: dict[str, Any]) -> Any:
    try:
        return policy_of(document)
    except BadInput as error:
        raise bad(error) from None


def _said(service: Service, caller: Caller, name: str, wish: Wish) -> WatchAnswer:
    _told(service, name)
    try:
        say(service.store, name, wish, caller.token)
    except BadInput as error:
        raise conflict(error) from None
    return watch_answer(service.store, name)
