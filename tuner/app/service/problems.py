"""Errors as the service tells them: problem details (RFC 9457), with the place, what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
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


class Refused(Exception):
    """An answer that is a problem, with its status."""

    def __init__(
        self, status: HTTPStatus, detail: str, wrong: BadInput | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self.status, self.detail, self.wrong, self.headers = status, detail, wrong, dict(headers or {})
        super().__init__(detail)


FAULT = Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of the service; its log has the trace")


def as_problem(refused: Refused, kind: str = BLANK) -> JSONResponse:
    """The answer of a refusal."""
    problem = ProblemAnswer(type=kind, title=refused.status.phrase, status=refused.status.value, detail=refused.detail)
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


def handle_errors(app: FastAPI) -> None:
    """Have every error of ours, of the framework and of nobody answered as a problem."""

    def refused(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        return as_problem(error)

    def ours(_: Request, error: Exception) -> JSONResponse:
        if isinstance(error, BadInput):
            return as_problem(bad(error))
        if isinstance(error, StoreError):
            return as_problem(Refused(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers={"Retry-After": "5"}))
        kind = HTTPStatus.CONFLICT if isinstance(error, NoFeasibleLayout) else HTTPStatus.INTERNAL_SERVER_ERROR
        return as_problem(Refused(kind, str(error)), INFEASIBLE if isinstance(error, NoFeasibleLayout) else BLANK)

    def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return as_problem(bad(BadInput("body", "no JSON", "a JSON document"), HTTPStatus.BAD_REQUEST))
        place = ".".join(str(part) for part in first["loc"])
        given = "nothing" if first["type"] == "missing" else first.get("input")
        allowed = "no such key" if first["type"] == "extra_forbidden" else first["msg"]
        return as_problem(bad(BadInput(place, given, allowed.removeprefix("Input should be "))))

    def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return as_problem(Refused(HTTPStatus(error.status_code), str(error.detail), headers=error.headers))

    def unknown(_: Request, error: Exception) -> JSONResponse:
        return as_problem(FAULT)

    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(ParlayError, ours)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unknown)
