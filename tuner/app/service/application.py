"""The service as an ASGI application: its routes, its errors, and what every answer carries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool

from tuner.app.answers.version import HealthAnswer, VersionAnswer
from tuner.app.service import (
    account_routes,
    cluster_routes,
    event_routes,
    page_routes,
    planning_routes,
    study_routes,
    watch_routes,
)
from tuner.app.service.access import Doorkeeper
from tuner.app.service.deployed import Seen
from tuner.app.service.gate import Gate
from tuner.app.service.joined_reads import JoinedReads
from tuner.app.service.metrics import CONTENT_TYPE, ServiceMetrics
from tuner.app.service.problems import MEDIA_TYPE, ProblemAnswer, Refused, handle_errors
from tuner.app.service.rates import Rates
from tuner.app.service.service import Here, Service, Settings
from tuner.app.service.tagged import told_as_json
from tuner.app.service.watching import Watchers
from tuner.ask.request import TuneRequest
from tuner.errors import StoreError
from tuner.study.accounts import Scope
from tuner.study.schema import SCHEMA_VERSION
from tuner.study.store import Store
from tuner.trial.launched import parlay_version

if TYPE_CHECKING:
    from tuner.app.service.issuer import Issuer

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
async def metrics(service: Here, request: Request) -> Response:
    """Counts and times, and names of studies; with a token that reads, unless it was started with them open."""
    if not service.settings.metrics_open:
        await service.doorkeeper.admit(request, Scope.READ)
    return Response(await run_in_threadpool(service.metrics.text), media_type=CONTENT_TYPE)


@_health.get("/v1/version", summary="Its versions")
def versions() -> VersionAnswer:
    """Of Parlay, of this interface and of the store."""
    return VersionAnswer(parlay=parlay_version(), api="v1", schema_version=SCHEMA_VERSION)


def application(
    store: Store,
    settings: Settings,
    *,
    open_to_all: bool,
    issuer: Issuer | None = None,
    deployed: Callable[[], Sequence[Seen]] = tuple,
) -> FastAPI:
    """The service on a store. ``open_to_all``: it asks for no token, as its own machine alone reaches it; ``issuer``:
    the identity provider whose tokens are let in beside those of the store; ``deployed``: what is known of deployed
    winners."""
    limits = settings.limits
    rates, failures = Rates(limits.requests_per_s, limits.burst), Rates(limits.failures_per_s, limits.failures_burst)
    tokens = None if open_to_all else JoinedReads(store.accounts.check)
    keeper = Doorkeeper(tokens, rates, failures, issuer)
    metrics = ServiceMetrics(store, deployed)
    watchers = Watchers(store, limits.listeners, metrics.events, limits.listeners_each)
    service = Service(store, settings, keeper, watchers, metrics, JoinedReads(partial(told_as_json, store.listing)))

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
    kinds = (planning_routes, cluster_routes, study_routes, watch_routes, event_routes, account_routes, page_routes)
    for router in (_health, *(kind.routes for kind in kinds)):
        app.router.routes += router.routes  # as they are: to include a router would be to analyse each of them again
    handle_errors(app, keeper.limited)
    app.add_middleware(Gate, limits=limits, metrics=service.metrics, own_only=open_to_all)
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
