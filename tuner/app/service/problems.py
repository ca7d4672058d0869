"""Errors as the service tells them: problem details (RFC 9457), with the place, what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from tuner.app.answers.problem import INFEASIBLE
from tuner.errors import BadInput, NoFeasibleLayout, ParlayError, StoreError

MEDIA_TYPE = "application/problem+json"
BLANK = "about:blank"


class ProblemAnswer(BaseModel):
    """An error (RFC 9457); ``where``, ``given`` and ``allowed`` as the command line says them."""

    type: str = Field(default=BLANK, description="What kind of problem it is; about:blank: that of the status.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong, in one line.")
    where: str | None = Field(default=None, description="The place that is wrong, such as slo.0.ms.")
    given: str | None = Field(default=None, description="What stood there.")
    allowed: str | None = Field(default=None, description="What may stand there.")
    gpu_hours: float | None = Field(default=None, description="Of a quota: what is spent in its window.")
    allowed_gpu_hours: float | None = Field(default=None, description="Of a quota: what may be spent in its window.")
    window_days: float | None = Field(default=None, description="Of a quota: its window.")
    frees_at: float | None = Field(
        default=None, description="Of a quota: when another launch is possible, s since 1970; absent: never."
    )


class Refused(Exception):
    """An answer that is a problem, with its status."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        wrong: BadInput | None = None,
        headers: Mapping[str, str] | None = None,
        kind: str = BLANK,
        more: Mapping[str, float | None] | None = None,
    ) -> None:
        """``more``: members of the problem beside those of every one."""
        self.status, self.detail, self.wrong, self.headers = status, detail, wrong, dict(headers or {})
        self.kind, self.more = kind, dict(more or {})
        super().__init__(detail)


FAULT = Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of the service; its log has the trace")


def as_problem(refused: Refused) -> JSONResponse:
    """The answer of a refusal."""
    status = refused.status
    problem = ProblemAnswer(type=refused.kind, title=status.phrase, status=status.value, detail=refused.detail)
    problem = problem.model_copy(update=refused.more)
    if refused.wrong is not None:
        places = {"where": refused.wrong.where, "given": shown(refused.wrong.given), "allowed": refused.wrong.allowed}
        problem = problem.model_copy(update=places)
    content = problem.model_dump(exclude_none=True)
    content = {key: _whole(value) if isinstance(value, str) else value for key, value in content.items()}
    return JSONResponse(content, refused.status.value, refused.headers, media_type=MEDIA_TYPE)


def _whole(text: str) -> str:
    """The text, with what no UTF-8 has (half a character of an escape in JSON) written as that escape."""
    return text.encode(errors="backslashreplace").decode()


def shown(given: object) -> str:
    """What was given, as text that is not longer than a person reads."""
    text = given if isinstance(given, str) else repr(given)
    return text if len(text) <= 200 else text[:199] + "…"


def bad(error: BadInput, status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY) -> Refused:
    """The problem that a BadInput is."""
    return Refused(status, str(BadInput(error.where, shown(error.given), error.allowed)), error)


def handle_errors(app: FastAPI, limited: Callable[[Request, Refused], Refused]) -> None:
    """Have every error of ours, of the framework and of nobody answered as a problem; ``limited`` may put another in
    its place."""

    def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        return as_problem(limited(request, error))

    def ours(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, BadInput):
            return as_problem(bad(error))
        if isinstance(error, StoreError):
            return as_problem(Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers={"Retry-After": "5"}))
        kind = HTTPStatus.CONFLICT if isinstance(error, NoFeasibleLayout) else HTTPStatus.INTERNAL_SERVER_ERROR
        return as_problem(Refused(kind, str(error), kind=INFEASIBLE if isinstance(error, NoFeasibleLayout) else BLANK))

    def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return as_problem(bad(BadInput("body", "no JSON", "a JSON document"), HTTPStatus.BAD_REQUEST))
        place = ".".join(str(part) for part in first["loc"])
        given = "nothing" if first["type"] == "missing" else first.get("input")
        allowed = "no such key" if first["type"] == "extra_forbidden" else first["msg"]
        return as_problem(bad(BadInput(place, given, allowed.removeprefix("Input should be "))))

    def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        known = Refused(HTTPStatus(error.status_code), str(error.detail), headers=error.headers)
        return as_problem(limited(request, known))

    def unknown(_: Request, error: Exception) -> JSONResponse:
        return as_problem(FAULT)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(ParlayError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unknown)
