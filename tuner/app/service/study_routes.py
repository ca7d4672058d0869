"""Studies over HTTP: ask for one, look at it, steer it, and take what came of it."""

from __future__ import annotations

import base64
import binascii
import json
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import Field

from tuner.app.answers.decision import ShowAnswer, show_answer
from tuner.app.answers.explain import ExplainAnswer
from tuner.app.answers.picture import PictureAnswer
from tuner.app.answers.study import StudyAnswer, StudyListAnswer, study_answer, study_line_answer
from tuner.app.service.access import Admin, Caller, Guarded, Reader, Tuner
from tuner.app.service.allowance import require_room
from tuner.app.service.cluster_routes import discovers
from tuner.app.service.planning_routes import Body, Document, request_of
from tuner.app.service.problems import Refused, bad
from tuner.app.service.service import Here, Service, conflict, unknown
from tuner.app.tune.trial_log import folder_of, log_text
from tuner.ask.layout import ParallelLayout
from tuner.errors import BadInput
from tuner.study.lifecycle import StudyState
from tuner.study.listing import Place
from tuner.study.orders import Terms, Wish
from tuner.study.study import default_name, service_name

routes = APIRouter(route_class=Guarded, prefix="/v1/studies", tags=["studies"])
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class StudyBody(Body):
    """A study to run."""

    request: Document
    name: Annotated[str, Field(pattern=_NAME, description="Default: made from the request.")] | None = None
    launcher: Annotated[str, Field(max_length=20, description="Default: the service's first.")] | None = None
    simulated_seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Of a simulated cluster.")] | None = None
    priority: Annotated[int, Field(ge=-100, le=100, description="A higher one is run first.")] = 0


@routes.post("", status_code=HTTPStatus.CREATED, summary="Queue a study")
def create(
    body: StudyBody,
    service: Here,
    caller: Tuner,
    response: Response,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> StudyAnswer:
    """Queue it. With an ``Idempotency-Key``, the same once more is the same study, not another."""
    request = request_of(service, body.request)
    launchers = service.settings.launchers
    launcher = body.launcher or launchers[0]
    if launcher not in launchers:
        raise bad(BadInput("launcher", launcher, ", ".join(launchers)))
    if body.simulated_seed is not None and launcher != "simulated":
        raise bad(BadInput("simulated_seed", body.simulated_seed, "with launcher simulated only"))
    if discovers(body.request) and launcher != "ray":
        raise bad(BadInput("request: cluster", "ray", f"gpu, nodes and gpus_per_node, with launcher {launcher}"))
    seed = (body.simulated_seed or 0) if launcher == "simulated" else None
    name = body.name or default_name(request)
    terms = Terms(caller.token, launcher, seed, body.priority)
    with service.store.exclusive():  # of all who ask at once, nobody takes the same room
        again = service.store.orders.asked_before(caller.token, idempotency_key)
        try:
            if not again:
                service.store.orders.require_new(name)
                require_room(service, caller, caller.token, name, simulated=seed is not None)
            service.store.orders.submit(name, request, terms, idempotency_key, discovers=discovers(body.request))
        except BadInput as error:
            raise conflict(error) from None
    if not again:
        service.noted(caller, "create", name, "queued")
    response.headers["Location"] = f"/v1/studies/{name}"
    return told(service, name)


@routes.get("", summary="List studies")
def studies(
    service: Here,
    caller: Reader,
    state: Annotated[list[StudyState] | None, Query(description="Only of these states.")] = None,
    cursor: Annotated[str | None, Query(max_length=400, description="Where the page before ended.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> StudyListAnswer:
    """The newest first, a page at a time."""
    lines = service.store.listing.page(state or (), None if cursor is None else _place(cursor), limit + 1)
    more = lines[limit - 1] if len(lines) > limit else None
    shown = [study_line_answer(line) for line in lines[:limit]]
    return StudyListAnswer(studies=shown, next=None if more is None else _cursor((more.created_at, more.name)))


@routes.get("/{name}", summary="One study", response_model=StudyAnswer)
async def study(
    name: str, service: Here, caller: Reader, if_none_match: Annotated[str | None, Header(max_length=1000)] = None
) -> Response:
    """What was asked, and where it stands. With the ``ETag`` of an answer as ``If-None-Match``: 304 while it holds."""
    found = await service.told.of(name)
    if found is None:
        raise unknown(name)
    return found.response(if_none_match)


@routes.get("/{name}/decision", summary="The decision, or how it stands")
def decision(name: str, service: Here, caller: Reader) -> ShowAnswer:
    """As ``parlay show --json``; ``ended`` says whether it is the decision."""
    from tuner.app.wiring import decision_of

    record = service.study(name)
    found, ended = decision_of(service.store, record)
    return show_answer(found, record, ended)


@routes.get("/{name}/report", summary="The report, a page by itself", response_class=HTMLResponse)
def report(name: str, service: Here, caller: Reader) -> HTMLResponse:
    """As ``parlay tune`` writes it."""
    from deploy.report.study_page import render_report
    from tuner.app.wiring import decision_of, shown

    record = service.study(name)
    found, ended = decision_of(service.store, record)
    page = render_report(shown(service.store, record, found, {}, ended=ended))
    return HTMLResponse(page, headers={"Content-Security-Policy": "sandbox allow-scripts"})


@routes.get("/{name}/picture", summary="The parts of the report, for a page that draws them")
def picture(name: str, service: Here, caller: Reader) -> PictureAnswer:
    """Of a study that goes on: how it stands."""
    from deploy.report.study_page import figures_of, render_sections
    from tuner.app.wiring import decision_of, shown

    record = service.study(name)
    found, ended = decision_of(service.store, record)
    data = shown(service.store, record, found, {}, ended=ended)
    return PictureAnswer(ended=ended, sections=list(render_sections(data)), figures=figures_of(data))


@routes.get("/{name}/explanation", summary="Why the winner won, and where the milliseconds go")
def explanation(
    name: str,
    service: Here,
    caller: Reader,
    layout: Annotated[str | None, Query(max_length=400, description="Of this layout alone.")] = None,
) -> ExplainAnswer:
    """As ``parlay explain --json``."""
    from tuner.app.tune.explain import explain_study

    record = service.study(name)
    chosen = ParallelLayout.parse(layout) if layout else None
    return explain_study(service.store, record, chosen).answer(record)


@routes.get("/{name}/specs/{spec_format}", summary="The winner's deployment spec", response_class=PlainTextResponse)
def spec(
    name: str,
    spec_format: str,
    service: Here,
    caller: Reader,
    layout: Annotated[str | None, Query(max_length=400, description="Another measured layout.")] = None,
) -> PlainTextResponse:
    """As ``parlay emit`` prints it: ray-serve, rayservice, kustomize, helm-values, vllm or layoutrequest."""
    from deploy.controller.writing import FORMAT, layout_request_text
    from deploy.specs.shipment import FORMATS
    from deploy.specs.writing import emit
    from tuner.app.wiring import decision_of, measured_trial, shipment
    from tuner.rehearse.conditions import simulated_seed

    record = service.study(name)
    seed = simulated_seed(record.facts)
    if spec_format == FORMAT:
        return PlainTextResponse(layout_request_text(service_name(record.request), record.request, seed))
    if spec_format not in FORMATS:
        raise Refused(HTTPStatus.NOT_FOUND, f"there is no such format; known: {', '.join((*FORMATS, FORMAT))}")
    if seed is not None:
        raise Refused(HTTPStatus.CONFLICT, f"the cluster of study {name} was simulated: no spec of it ever ran")
    found, _ = decision_of(service.store, record)
    chosen = shipment(record, measured_trial(found, layout))
    chosen.require(spec_format)
    return PlainTextResponse(emit(spec_format, chosen))


@routes.get("/{name}/trials/{number}/log", summary="The end of a trial's logs", response_class=PlainTextResponse)
def log(
    name: str,
    number: Annotated[int, InPath(ge=0, le=10**6)],
    service: Here,
    caller: Reader,
    tail: Annotated[int, Query(ge=1, le=10_000, description="So many lines of each file.")] = 200,
) -> PlainTextResponse:
    """Of its files, where this machine has them; else what the worker that ran it has kept in the store."""
    service.require(name)
    found = log_text(folder_of(service.settings.out / name / "logs", number), tail) or service.store.logs.find(
        name, number
    )
    if found is None:
        raise Refused(HTTPStatus.NOT_FOUND, f"no logs are kept of trial {number} of study {name}")
    return PlainTextResponse(found)


@routes.post("/{name}/pause", status_code=HTTPStatus.ACCEPTED, summary="Stop it, to go on later")
def pause(name: str, service: Here, caller: Tuner) -> StudyAnswer:
    """What runs is torn down; nothing that was measured is lost."""
    return _asked(service, caller, name, Wish.PAUSE)


@routes.post("/{name}/cancel", status_code=HTTPStatus.ACCEPTED, summary="End it")
def cancel(name: str, service: Here, caller: Tuner) -> StudyAnswer:
    """What runs is torn down."""
    return _asked(service, caller, name, Wish.CANCEL)


@routes.post("/{name}/resume", status_code=HTTPStatus.ACCEPTED, summary="Go on with one that was stopped")
def resume(name: str, service: Here, caller: Tuner) -> StudyAnswer:
    """Queue it again: it repeats nothing that finished."""
    service.require(name)
    orders = service.store.orders
    with service.store.exclusive():
        try:
            orders.require_resumable(name)
            terms = orders.order(name).terms
            require_room(service, caller, terms.owner, name, simulated=terms.seed is not None)
            orders.resume(name)
        except BadInput as error:
            raise conflict(error) from None
    service.noted(caller, "resume", name, "queued")
    return told(service, name)


@routes.post("/{name}/pin", summary="Keep it, whatever the rule")
def pin(name: str, service: Here, caller: Tuner) -> StudyAnswer:
    """One whose winner is deployed: it is neither archived nor deleted for its age."""
    service.require(name)
    service.store.archive.pin(name)
    service.noted(caller, "pin", name, "pinned")
    return told(service, name)


@routes.delete("/{name}/pin", summary="Let the rule have it again")
def unpin(name: str, service: Here, caller: Tuner) -> StudyAnswer:
    """It goes when it is old."""
    service.require(name)
    service.store.archive.unpin(name)
    service.noted(caller, "unpin", name, "not pinned")
    return told(service, name)


@routes.delete("/{name}", status_code=HTTPStatus.NO_CONTENT, summary="Forget one that has ended")
def delete(name: str, service: Here, caller: Admin) -> None:
    """All that the store knows of it; the files of its trials stay where they are."""
    service.require(name)
    try:
        service.store.delete_study(name)
    except BadInput as error:
        raise conflict(error) from None
    service.noted(caller, "delete", name, "deleted")


def told(service: Service, name: str) -> StudyAnswer:
    """The answer of one study."""
    head = service.store.listing.head(name)
    if head is None:
        raise unknown(name)
    return study_answer(head)


def _asked(service: Service, caller: Caller, name: str, wish: Wish) -> StudyAnswer:
    service.require(name)
    try:
        state = service.store.orders.ask(name, wish)
    except BadInput as error:
        raise conflict(error) from None
    service.noted(caller, wish.value, name, state.value)
    return told(service, name)


def _cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _place(cursor: str) -> Place:
    try:
        at, name = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        str(name).encode()  # half a character is in no name, and no database takes it
        return float(at), str(name)
    except (ValueError, TypeError, binascii.Error):
        raise bad(BadInput("cursor", cursor, "the `next` of a page before")) from None
