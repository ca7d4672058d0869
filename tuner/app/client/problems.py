"""Problem details of a service, as the errors that the same would raise here."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from tuner.app.answers.problem import INFEASIBLE
from tuner.errors import BadInput, NoFeasibleLayout, ParlayError, ServiceError, StoreError


def error_of(status: int, problem: Mapping[str, object], asked: str) -> ParlayError:
    """The error; ``problem`` is the body as decoded, ``asked`` what was asked for, such as a study's name."""
    detail = str(problem.get("detail") or f"it answered with status {status}")
    if problem.get("where") is not None:
        return BadInput(str(problem["where"]), problem.get("given"), str(problem.get("allowed")))
    if problem.get("type") == INFEASIBLE:
        return NoFeasibleLayout(detail)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return BadInput("PARLAY_TOKEN", "a token that may not do this, or none", detail)
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
        return BadInput("--server", asked, detail)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        return StoreError(detail)
    return ServiceError(f"the service says: {detail}")
