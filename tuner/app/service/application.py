"""The service as an ASGI application: its routes, its errors, and what every answer carries."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuner.app.answers.version import HealthAnswer, VersionAnswer
from tuner.app.service import cluster_routes, event_routes, page_routes, planning_routes, study_routes
from tuner.app.service.access import Doorkeeper, Rates
from tuner.app.service.deployed import Seen
from tuner.app.service.hosts import require_own
from tuner.app.service.metrics import CONTENT_TYPE, ServiceMetrics
from tuner.app.service.problems import FAULT, MEDIA_TYPE, ProblemAnswer, Refused, as_problem, handle_errors
from tuner.app.service.service import Here, Service, Settings
from tuner.app.service.watching import Watchers
from tuner.ask.request import TuneRequest
from tuner.errors import StoreError
from tuner.study.schema import SCHEMA_VERSION
from tuner.study.store import Store
from tuner.trial.launched import parlay_version

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_PROBLEM = {
    "description": "What went wrong: problem details (RFC 9457).",
    "content": {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{ProblemAnswer.__name__}"}}},
}
_health = APIRouter(tags=["health"])


@_health.get("/healthz", summary="It lives")
def healthz() -> HealthAnswer:
    """Nothing else is looked at."""
    return HealthAnswer(status="ok")


@_health.get("/readyz", summary="It can work")
def readyz(service: Here) -> HealthAnswer:
    """The store answers."""
    try:
        service.store.listing.counts()
    except StoreError as error:
        raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
    return HealthAnswer(status="ok")


@_health.get("/metrics", summary="For Prometheus", response_class=Response)
def metrics(service: Here) -> Response:
    """Counts and times, of no study's content; whoever reaches the service may read them."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE)


@_health.get("/v1/version", summary="Its versions")
def versions() -> VersionAnswer:
    """Of Parlay, of this interface and of the store."""
    return VersionAnswer(parlay=parlay_version(), api="v1", schema_version=SCHEMA_VERSION)


def application(
    store: Store, settings: Settings, *, open_to_all: bool, deployed: Callable[[], Sequence[Seen]] = tuple
) -> FastAPI:
    """The service on a store. ``open_to_all``: it asks for no token, as its own machine alone reaches it. ``deployed``:
    what is known of deployed winners."""
    limits = settings.limits
    keeper = Doorkeeper(None if open_to_all else store.accounts, Rates(limits.requests_per_s, limits.burst))
    metrics = ServiceMetrics(store, deployed)
    service = Service(store, settings, keeper, Watchers(store, limits.listeners, metrics.events), metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.watchers.close()

    app = FastAPI(
        title="Parlay",
        version=parlay_version(),
        description="Finds the vLLM layout that meets a latency SLO at the lowest cost, by measuring it.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.service = service
    for module in (planning_routes, cluster_routes, study_routes, event_routes, page_routes):
        app.include_router(module.routes)
    app.include_router(_health)
    handle_errors(app)
    app.add_middleware(Gate, body_bytes=limits.body_bytes, metrics=service.metrics, own_only=open_to_all)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # as FastAPI's own documentation does
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the request's own schema in it."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schema = TuneRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        parts = schema.pop("$defs", {})
        problem = ProblemAnswer.model_json_schema()
        found["components"]["schemas"] |= {**parts, TuneRequest.__name__: schema, ProblemAnswer.__name__: problem}
        for body in (planning_routes.PlanBody, planning_routes.SimulationBody, study_routes.StudyBody):
            properties = found["components"]["schemas"][body.__name__]["properties"]
            properties["request"] = {"$ref": f"#/components/schemas/{TuneRequest.__name__}"}
        for operation in (one for path in found["paths"].values() for one in path.values()):
            operation["responses"].pop("422", None)  # FastAPI's own form, which nothing here has
            operation["responses"]["default"] = _PROBLEM
        app.openapi_schema = found
    return app.openapi_schema


class Gate:
    """Refuses bodies that are too long and, if ``own_only``, other names than this machine's; puts security headers on
    every answer, that of a fault too, and counts it."""

    def __init__(self, app: ASGIApp, body_bytes: int, metrics: ServiceMetrics, own_only: bool) -> None:
        self._app, self._most, self._metrics, self._own_only = app, body_bytes, metrics, own_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        got, began, started = 0, time.perf_counter(), False

        async def limited() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self._most:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body has at most {self._most} bytes")
            return message

        async def secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                route = getattr(scope.get("route"), "path", "unknown")
                self._metrics.answered(route, scope["method"], message["status"], time.perf_counter() - began)
                named = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in _HEADERS if pair[0] not in named)]
            await send(message)

        try:
            if self._own_only:
                require_own(scope["headers"])
            await self._app(scope, limited, secured)
        except Refused as refused:
            await as_problem(refused)(scope, receive, secured)
        except Exception:
            if not started:
                await as_problem(FAULT)(scope, receive, secured)
            raise  # for the log
