"""What the model says, and nothing is launched for: plans, simulations, and what can be named in a request."""

from __future__ import annotations

from http import HTTPStatus
from math import prod
from typing import Annotated, Any

import yaml
from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema

from tuner.app.answers.names import NamesAnswer
from tuner.app.answers.plan import PlanAnswer
from tuner.app.answers.simulate import SimulateAnswer
from tuner.app.answers.written import ProblemPlaceAnswer, WrittenAnswer
from tuner.app.service.access import Guarded, Reader
from tuner.app.service.cluster_routes import with_cluster
from tuner.app.service.confine import confine
from tuner.app.service.problems import Refused, shown
from tuner.app.service.reading import plain_json, read_yaml
from tuner.app.service.service import Here, Service
from tuner.ask.layout import ParallelLayout
from tuner.ask.model import known_models
from tuner.ask.profile import PROFILE_DIR, canonical_gpu, gpu_choices, known_profiles
from tuner.ask.request import TuneRequest
from tuner.ask.request_document import parse_request
from tuner.ask.space import SPACES_DIR, STRUCTURE_AXES, Space, load_space
from tuner.errors import BadInput

routes = APIRouter(route_class=Guarded, prefix="/v1", tags=["planning"])
_MOST_REQUESTS = 20_000
_MOST_DEVICES, _MOST_TOKENS = 4_096, 100_000_000  # of a simulation
_MOST_STRUCTURES, _MOST_CANDIDATES = 10_000, 500_000  # five times what the largest space of ours holds, and more


# A request as it was written: read by the one function that reads a file's, so that its errors are the same.
Document = Annotated[
    dict[str, Any], AfterValidator(plain_json), WithJsonSchema({"type": "object", "title": TuneRequest.__name__})
]


class Body(BaseModel):
    """What is sent; it has no key beside those named."""

    model_config = ConfigDict(extra="forbid")


class PlanBody(Body):
    """What to plan."""

    request: Document
    simulate: Annotated[int, Field(ge=0, le=64, description="Simulate until so many layouts have held the SLO.")] = 0


class SimulationBody(Body):
    """What to simulate."""

    request: Document
    layout: Annotated[str, Field(max_length=400, description="The layout, such as tp=2,pp=1,dp=4.")]
    requests: Annotated[int, Field(ge=1, le=_MOST_REQUESTS, description="How many requests.")] = 1000
    rate_req_per_s: Annotated[float, Field(gt=0, le=1e4, description="Default: the request's.")] | None = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="Of arrivals and lengths.")] = 0


class RequestBody(Body):
    """A request as YAML, or as a document."""

    text: Annotated[str, Field(max_length=100_000, description="YAML; looked at where there is no document.")] = ""
    document: Annotated[dict[str, Any], AfterValidator(plain_json)] | None = Field(
        default=None, description="What is to be written as YAML."
    )


def request_of(service: Service, document: dict[str, Any]) -> TuneRequest:
    """The request that a document is, if it names no file but those that the service has opened; raises BadInput.

    One that asks for the running Ray cluster gets what a worker sees of it.
    """
    confine(document, service.settings.roots)
    request = parse_request(with_cluster(service, document))
    _require_small(load_space(request.space))
    return request


def _require_small(space: Space) -> None:
    structures = prod(len(space.values(axis)) for axis in STRUCTURE_AXES)
    if structures > _MOST_STRUCTURES or space.size > _MOST_CANDIDATES:
        allowed = f"at most {_MOST_CANDIDATES:,} layouts, in {_MOST_STRUCTURES:,} beside the scheduler's limits"
        raise BadInput("request: space", f"{space.size:,} layouts", allowed)


def _require_short(request: TuneRequest, layout: ParallelLayout, requests: int) -> None:
    if layout.devices > _MOST_DEVICES:
        raise BadInput(
            "layout", f"{layout.devices:,} devices", f"at most {_MOST_DEVICES:,} here; `parlay simulate` takes more"
        )
    tokens = requests * (request.workload.prompt_tokens.bounds[1] + request.workload.output_tokens.bounds[1])
    if tokens > _MOST_TOKENS:
        raise BadInput(
            "requests", f"up to {tokens:,} tokens", f"at most {_MOST_TOKENS:,} here, prompts and outputs together"
        )


@routes.post("/plans", summary="Rank layouts without launching anything")
def plan(body: PlanBody, service: Here, caller: Reader) -> PlanAnswer:
    """As ``parlay plan --json``; where no layout meets the SLO, ``infeasible`` says why."""
    from tuner.app.wiring import planned_answer

    return planned_answer(request_of(service, body.request), body.simulate)


@routes.post("/simulations", summary="One layout under load, simulated")
def simulation(body: SimulationBody, service: Here, caller: Reader) -> SimulateAnswer:
    """As ``parlay simulate --json``."""
    from tuner.app.simulate import SimulateOptions, simulate_answer

    layout, request = ParallelLayout.parse(body.layout), request_of(service, body.request)
    options = SimulateOptions(layout=layout, requests=body.requests, rate_req_per_s=body.rate_req_per_s, seed=body.seed)
    _require_short(request, layout, body.requests)
    return simulate_answer(request, options)


@routes.post("/requests", summary="A request as text and as a document, and what is wrong in it")
def written(body: RequestBody, service: Here, caller: Reader) -> WrittenAnswer:
    """Reads a request's YAML, or writes it: a page shows both, and lets either be edited."""
    document = read_yaml(body.text) if body.document is None else body.document
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True) if body.document is not None else body.text
    problem = None
    try:
        request_of(service, document)
    except BadInput as error:
        problem = ProblemPlaceAnswer(where=error.where, given=shown(error.given), allowed=error.allowed)
    return WrittenAnswer(text=text, document=document, problem=problem)


@routes.get("/names", summary="Models, GPUs and search spaces by name")
def names(service: Here, caller: Reader) -> NamesAnswer:
    """What a request may name."""
    spaces = {path.stem: yaml.safe_load(path.read_text("utf-8"))["axes"] for path in sorted(SPACES_DIR.glob("*.yaml"))}
    return NamesAnswer(models=list(known_models()), gpus=list(known_profiles()), spaces=spaces)


@routes.get("/profiles/{name}", summary="A hardware profile")
def profile(name: str, service: Here, caller: Reader) -> dict[str, object]:
    """Its datasheet and its fitted numbers, each with its source."""
    name = canonical_gpu(name)
    if name not in known_profiles():
        raise Refused(HTTPStatus.NOT_FOUND, f"there is no profile {shown(name)}; known: {gpu_choices(name)}")
    document: dict[str, object] = yaml.safe_load((PROFILE_DIR / f"{name}.yaml").read_text("utf-8"))
    return document
